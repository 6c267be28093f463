"""The gateway's stores in memory: jobs, claims of keys, and objects, as the real ones behave, for unit tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from chassis.errors import AwayError, BackEndError
from contracts import api, topology
from contracts.audio import UNKNOWN_TYPE
from contracts.events import Event, UploadReceived
from contracts.job import Job, Status, is_terminal
from contracts.metadata import terms_asked
from gateway.audio import AudioGoneError, Recording, StoredAudio
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.jobs.removals import Ending
from gateway.person.documents import Scored
from gateway.person.erasing import Erasure
from gateway.redrive.documents import Removal
from gateway.redrive.timing import StandingJob, Wait
from gateway.sharing.links import Link
from gateway.uploads.idempotency import Claim

_WITHOUT_HISTORY: dict[str, Any] = {"history": [], "upload_received": None, "audio": None}
_SUMMARY: dict[str, Any] = {**_WITHOUT_HISTORY, "result_json": None}
OBJECTS_PER_PAGE = 2


class Broker:
    """Takes events, after it has refused as many as `failures` says."""

    def __init__(self, failures: int = 0) -> None:
        self.published: list[Event] = []
        self.redriven: list[Event] = []
        """Those of the published that say so, and those that went to one queue alone."""
        self.failures = failures
        self.waiting = 0
        """How many messages wait in a queue on the way."""

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Keep the event."""
        self._turn()
        self.published.append(event)
        if redriven:
            self.redriven.append(event)

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Keep the event."""
        assert queue == topology.UPLOADER_UPLOAD_RECEIVED
        self._turn()
        self.redriven.append(event)

    async def is_up(self) -> bool:
        """Tell whether it would take an event now."""
        return not self.failures

    async def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of messages that wait."""
        self._turn()
        return {name: self.waiting if index == 1 else 0 for index, name in enumerate(names)}

    def _turn(self) -> None:
        if self.failures:
            self.failures -= 1
            raise BackEndError("RabbitMQ", "down")


class Jobs:
    """The `jobs` collection; as many questions as `failures` says find it away, and `done` notes what was inserted.

    The next insert raises `error`, before anything is done, or after it when it is `unsure`. `unseen` jobs are not on a
    majority's disks yet.
    """

    def __init__(self, *jobs: Job, failures: int = 0, done: list[str] | None = None) -> None:
        self.kept = {job.job_id: job for job in jobs}
        self.failures = failures
        self.error: BaseException | None = None
        self.unsure = self.unseen = False
        self.asked_ended: list[tuple[datetime, int]] = []
        self._done = [] if done is None else done

    async def insert(self, job: Job) -> bool:
        """Keep a new job."""
        await self._turn()
        if self.error:
            raise self.error
        same = (job.recording_of, job.retry_number)
        if job.job_id in self.kept or (job.recording_of and same in map(_retry, self.kept.values())):
            return False
        self.kept[job.job_id] = job
        self._done.append("inserted")
        if self.unsure:
            self.unsure = False
            raise AwayError("MongoDB", "down")
        return True

    async def retry_numbers(self, recording_of: str) -> set[int]:
        """Return the numbers of a recording's retries."""
        await self._turn()
        return {job.retry_number or 0 for job in self.kept.values() if job.recording_of == recording_of}

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        await self._turn()
        job = self.there(job_id)
        return None if job is None else job.model_copy(update=_WITHOUT_HISTORY)

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job."""
        await self._turn()
        job = self.there(job_id)
        return None if job is None else job.model_copy(update={"upload_received": None})

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from."""
        await self._turn()
        job = self.there(job_id)
        return None if job is None or self.unseen else Recording.of(job.token_id, job.sha256, job.metadata)

    async def traceparent(self, job_id: str) -> str | None:
        """Return the job's trace."""
        await self._turn()
        job = self.there(job_id)
        return None if job is None else job.traceparent

    async def page(
        self,
        job_filter: JobFilter,
        after: Cursor | None,
        limit: int,
        metadata: MetadataAsked = (),
        owner: str | None = None,
    ) -> list[Job]:
        """Return a page, the newest first."""
        await self._turn()
        found = [job for job in self.kept.values() if _matches(job, job_filter) and job.purge_asked_at is None]
        if owner is not None:
            found = [job for job in found if job.owner == owner]
        asked = [set(terms_asked(key, text)) for key, text in metadata]
        found = [job for job in found if all(terms & set(job.metadata_terms) for terms in asked)]
        if after is not None:
            found = [job for job in found if _place(job) < (after.created_at, after.job_id)]
        return [job.model_copy(update=_SUMMARY) for job in sorted(found, key=_place, reverse=True)[:limit]]

    async def ahead(self, job: Job) -> int:
        """Return how many are ahead."""
        await self._turn()
        before = sum(not _has_ended(other) and other.created_at < job.created_at for other in self.kept.values())
        return min(before, api.MOST_AHEAD)

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """Return ended jobs, the oldest first."""
        self.asked_ended.append((moment, limit))
        await self._turn()
        found = [job for job in self.kept.values() if _has_ended(job) and job.created_at < moment]
        return [job.job_id for job in sorted(found, key=_place) if job.purge_asked_at is None][:limit]

    async def ask_end(self, ending: Ending, job_ids: list[str], now: datetime) -> None:
        """Note what is asked for."""
        await self._turn()
        asked_at = f"{ending}_asked_at"
        for job_id in job_ids:
            job = self.there(job_id)
            if job is None or getattr(job, asked_at) or (ending == Ending.CANCEL and _has_ended(job)):
                continue
            at = _to_the_millisecond(now)
            self.kept[job_id] = job.model_copy(update={asked_at: at, "publish_at": at, "redrives": 0})

    async def purging(self) -> int:
        """Return how many are to be purged."""
        await self._turn()
        return sum(job.purge_asked_at is not None for job in self.kept.values())

    def there(self, job_id: str) -> Job | None:
        """Return the job, unless it is to be purged."""
        job = self.kept.get(job_id)
        return None if job is None or job.purge_asked_at is not None else job

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return which have not ended."""
        await self._turn()
        return {job_id for job_id in job_ids if job_id in self.kept and not _has_ended(self.kept[job_id])}

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise AwayError("MongoDB", "down")


class Redrives:
    """The fields of these jobs that say what is told again."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self.prepared = 0

    async def prepare(self) -> None:
        """Count that this was asked."""
        await asyncio.sleep(0)
        self.prepared += 1

    async def due(self, now: datetime, *, received: bool, limit: int) -> list[StandingJob]:
        """Return what is due, the longest due first."""
        await asyncio.sleep(0)
        found = [
            _standing(job)
            for job in self._due(now)
            if not _has_ended(job) and job.cancel_asked_at is None and job.purge_asked_at is None
        ]
        return [job for job in found if job.is_received == received][:limit]

    async def postpone(self, waits: list[tuple[StandingJob, Wait]]) -> None:
        """Have these looked at later."""
        await asyncio.sleep(0)
        for job, wait in waits:
            kept = self._jobs.there(job.job_id)
            if kept is not None and kept.cancel_asked_at is None:
                self._set(job.job_id, job.publish_at, publish_at=wait.until, redrives=wait.redrives)

    async def claim(self, job: StandingJob, until: datetime) -> str | None:
        """Claim a job."""
        await asyncio.sleep(0)
        kept = self._jobs.there(job.job_id)
        if kept is None or _has_ended(kept) or kept.cancel_asked_at is not None:
            return None
        return (kept.upload_received or "") if self._set(job.job_id, job.publish_at, publish_at=until) else None

    async def removals(self, ending: Ending, now: datetime, limit: int) -> list[Removal]:
        """Return the cancels or purges that are due."""
        await asyncio.sleep(0)
        found = [
            Removal(ending, job.job_id, job.recording, job.traceparent, job.publish_at or now, job.redrives)
            for job in self._due(now)
            if _is_asked(job, ending) and (ending == Ending.PURGE or job.purge_asked_at is None)
        ]
        return found[:limit]

    async def claim_removal(self, removal: Removal, until: datetime) -> bool:
        """Claim a cancel or a purge."""
        await asyncio.sleep(0)
        job = self._jobs.kept.get(removal.job_id)
        if job is None or not _is_asked(job, removal.ending):
            return False
        return self._set(removal.job_id, removal.publish_at, publish_at=until)

    async def told(self, job_id: str, claimed: datetime, redrives: int, at: datetime, then: datetime) -> None:
        """Note that a claimed job was told."""
        await asyncio.sleep(0)
        self._set(job_id, claimed, publish_at=then, redrives=redrives, redriven_at=at)

    async def hurry(self, job_id: str, claimed: datetime, then: datetime) -> None:
        """Note that a claimed job could not be told."""
        await asyncio.sleep(0)
        self._set(job_id, claimed, publish_at=then)

    async def purges_told_in_vain(self, most: int) -> int:
        """Count the purges that have been told more than once."""
        await asyncio.sleep(0)
        return min(most, sum(bool(job.purge_asked_at) and job.redrives > 1 for job in self._jobs.kept.values()))

    async def longest_due(self) -> datetime | None:
        """Return the earliest time."""
        await asyncio.sleep(0)
        times = [job.publish_at for job in self._jobs.kept.values() if job.publish_at and not _has_ended(job)]
        return min(times, default=None)

    def _due(self, now: datetime) -> list[Job]:
        times = [(job.publish_at, job.job_id) for job in self._jobs.kept.values() if job.publish_at is not None]
        return [self._jobs.kept[job_id] for publish_at, job_id in sorted(times) if publish_at <= now]

    def _set(self, job_id: str, seen: datetime, **fields: Any) -> bool:
        job = self._jobs.kept.get(job_id)
        if job is None or job.publish_at != seen:
            return False
        kept = {name: _to_the_millisecond(value) for name, value in fields.items()}
        self._jobs.kept[job_id] = job.model_copy(update=kept)
        return True


class KeptWebhooks:
    """The `webhooks` collection; while `error` is set, nothing can be kept."""

    def __init__(self) -> None:
        self.kept: dict[str, Event] = {}
        self.held_back: dict[str, datetime] = {}
        """Until when each of the others of a job waits."""
        self.error: Exception | None = None

    async def prepare(self) -> None:
        """Do nothing."""

    async def keep(self, webhook: Event) -> None:
        """Keep a webhook."""
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        self.kept.setdefault(webhook.id, webhook)

    async def due(self, now: datetime, limit: int) -> list[Event]:
        """Return those that are not held back."""
        await asyncio.sleep(0)
        return [one for one in self.kept.values() if self.held_back.get(one.id, now) <= now][:limit]

    async def hold_back_others(self, webhooks: list[Event], until: datetime) -> None:
        """Have all other webhooks of their jobs wait."""
        await asyncio.sleep(0)
        jobs, ids = {webhook.subject for webhook in webhooks}, {webhook.id for webhook in webhooks}
        others = [one.id for one in self.kept.values() if one.subject in jobs and one.id not in ids]
        self.held_back.update(dict.fromkeys(others, until))

    async def remove(self, event_ids: list[str]) -> None:
        """Remove these."""
        await asyncio.sleep(0)
        for event_id in event_ids:
            self.kept.pop(event_id, None)

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all of these jobs."""
        await asyncio.sleep(0)
        self.kept = {event_id: event for event_id, event in self.kept.items() if event.subject not in job_ids}


@dataclass(frozen=True)
class Held:
    """A claim, and whether its lease runs."""

    claim: Claim
    leased: bool


class Claims:
    """The `idempotency_keys` collection; leases end when `expire` says so, and methods named in `broken` fail."""

    def __init__(self) -> None:
        self.kept: dict[str, Held] = {}
        self.renewals = 0
        self.broken: set[str] = set()

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        """Claim a key that is new or free."""
        await self._turn("claim")
        before = self.kept.get(key)
        if before is None:
            self.kept[key] = Held(Claim(owner, job_id, None), leased=True)
        elif before.claim.recording is None and not before.leased:
            self.kept[key] = Held(replace(before.claim, owner=owner), leased=True)
        return self.kept[key].claim

    async def renew(self, key: str, owner: str) -> None:
        """Begin the lease anew."""
        if self._is_owners(key, owner):
            self.renewals += 1
        await self._turn("renew")
        if self._is_owners(key, owner):
            self.kept[key] = replace(self.kept[key], leased=True)

    async def free(self, key: str, owner: str) -> None:
        """End the lease."""
        await self._turn("free")
        if self._is_owners(key, owner):
            self.kept[key] = Held(replace(self.kept[key].claim, owner=""), leased=False)

    async def settle(self, key: str, recording: Recording) -> None:
        """Record what the key was used for."""
        await self._turn("settle")
        if key in self.kept:
            self.kept[key] = Held(replace(self.kept[key].claim, recording=recording), leased=False)

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove the claims that stand for these jobs."""
        await self._turn("forget")
        self.kept = {key: held for key, held in self.kept.items() if held.claim.job_id not in job_ids}

    def expire(self) -> None:
        """Let every lease end."""
        self.kept = {key: replace(held, leased=False) for key, held in self.kept.items()}

    def _is_owners(self, key: str, owner: str) -> bool:
        return key in self.kept and self.kept[key].claim.owner == owner

    async def _turn(self, method: str) -> None:
        await asyncio.sleep(0)
        if method in self.broken:
            raise AwayError("MongoDB", method)


class OwnedJobs:
    """These jobs, as far as they are somebody's."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def page(self, owner: str, after: Cursor | None, limit: int) -> list[Job]:
        """Return whole jobs, the newest first."""
        await asyncio.sleep(0)
        found = [job for job in self._of(owner) if after is None or _place(job) < (after.created_at, after.job_id)]
        ordered = sorted(found, key=_place, reverse=True)[:limit]
        return [job.model_copy(update={"upload_received": None, "metadata_terms": []}) for job in ordered]

    async def scored(self, owner: str, after_token: str, limit: int) -> list[Scored]:
        """Return scores by token, the newest first."""
        await asyncio.sleep(0)
        newest = sorted(self._of(owner), key=_place, reverse=True)
        found = [
            Scored(job.job_id, job.token_id, job.created_at, job.scores)
            for job in newest
            if job.scores is not None and job.token_id > after_token
        ]
        return sorted(found, key=lambda scored: scored.token_id)[:limit]

    async def begun_by(self, owner: str, moment: datetime, limit: int) -> list[str]:
        """Return the jobs whose upload had begun."""
        await asyncio.sleep(0)
        return [job.job_id for job in self._of(owner) if (job.began_at or job.created_at) <= moment][:limit]

    def _of(self, owner: str) -> list[Job]:
        return [job for job in self._jobs.kept.values() if job.owner == owner and job.purge_asked_at is None]


class Erasures:
    """The `erasures` collection; as many questions as `failures` says find it away."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[Erasure, datetime]] = {}
        self.failures = 0

    async def ask(self, owner: str, now: datetime) -> None:
        """Note that this was asked."""
        await self._turn()
        before = self.kept.get(owner)
        asked_at = now if before is None else max(before[0].asked_at, now)
        self.kept[owner] = (Erasure(owner, asked_at), now)

    async def due(self, now: datetime, limit: int) -> list[Erasure]:
        """Return those that are due."""
        await self._turn()
        due = sorted((at, owner) for owner, (_, at) in self.kept.items() if at <= now)
        return [self.kept[owner][0] for _, owner in due][:limit]

    async def look_again(self, erasure: Erasure, at: datetime) -> None:
        """Have it looked at later."""
        await self._turn()
        if self._stands(erasure):
            self.kept[erasure.owner] = (erasure, _to_the_millisecond(at))

    async def finish(self, erasure: Erasure) -> None:
        """Forget it."""
        await self._turn()
        if self._stands(erasure):
            del self.kept[erasure.owner]

    def _stands(self, erasure: Erasure) -> bool:
        return erasure.owner in self.kept and self.kept[erasure.owner][0] == erasure

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise AwayError("MongoDB", "down")


class ShareLinks:
    """The `share_links` collection."""

    def __init__(self) -> None:
        self.kept: list[Link] = []

    async def insert(self, link: Link) -> None:
        """Keep a new link."""
        await asyncio.sleep(0)
        times = {"created_at": _to_the_millisecond(link.created_at), "expires_at": _to_the_millisecond(link.expires_at)}
        self.kept.append(link.model_copy(update=times))

    async def find(self, secret_sha256: str, now: datetime) -> Link | None:
        """Return the link with this secret."""
        await asyncio.sleep(0)
        found = (link for link in self.kept if link.secret_sha256 == secret_sha256 and link.expires_at > now)
        return next(found, None)

    async def of_job(self, job_id: str, now: datetime) -> list[Link]:
        """Return a job's links."""
        await asyncio.sleep(0)
        return [link for link in self.kept if link.job_id == job_id and link.expires_at > now]

    async def remove(self, job_id: str, link_id: str) -> bool:
        """Remove one."""
        await asyncio.sleep(0)
        before = len(self.kept)
        self.kept = [link for link in self.kept if (link.job_id, link.link_id) != (job_id, link_id)]
        return len(self.kept) < before

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all of these jobs."""
        await asyncio.sleep(0)
        self.kept = [link for link in self.kept if link.job_id not in job_ids]


class Bucket:
    """S3: all of an object or nothing; `step` is called around each change, `done` notes what is new.

    Objects that have no date in `written` are new. Methods named in `broken` fail.
    """

    def __init__(self, step: Callable[[], None] = lambda: None, done: list[str] | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.types: dict[str, str] = {}
        self.written: dict[str, datetime] = {}
        self.asked: list[tuple[str, datetime]] = []
        self.aborted: list[tuple[str, datetime]] = []
        self.broken: set[str] = set()
        self._step = step
        self._done = [] if done is None else done

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
        """Store all of the chunks."""
        content = b"".join([chunk async for chunk in chunks])
        self._step()
        self.objects[key] = content
        self.types[key] = content_type
        self._done.append("stored")
        self._step()

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        """Copy an object."""
        await asyncio.sleep(0)
        if audio.key not in self.objects:
            raise AudioGoneError
        self.objects[key] = self.objects[audio.key]
        self._done.append("taken back")

    async def older_than(self, prefix: str, moment: datetime) -> AsyncIterator[list[str]]:
        """Yield old keys, OBJECTS_PER_PAGE at a time."""
        self.asked.append((prefix, moment))
        now = datetime.now(UTC)
        keys = [key for key in sorted(self.objects) if key.startswith(prefix) and self.written.get(key, now) < moment]
        for begin in range(0, len(keys), OBJECTS_PER_PAGE):
            yield keys[begin : begin + OBJECTS_PER_PAGE]

    async def remove_all(self, keys: list[str]) -> None:
        """Delete these."""
        await asyncio.sleep(0)
        if "remove_all" in self.broken:
            raise AwayError("S3", "down")
        for key in keys:
            self.objects.pop(key, None)

    async def remove_under(self, prefix: str) -> None:
        """Delete all of these."""
        await asyncio.sleep(0)
        for key in [key for key in self.objects if key.startswith(prefix)]:
            self._step()
            del self.objects[key]
        self._step()

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Note that this was asked."""
        self.aborted.append((prefix, moment))
        return 0


def _to_the_millisecond(value: Any) -> Any:
    """As MongoDB keeps times."""
    if not isinstance(value, datetime):
        return value
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def _standing(job: Job) -> StandingJob:
    assert job.publish_at is not None
    return StandingJob(
        job_id=job.job_id,
        publish_at=job.publish_at,
        updated_at=job.view.updated_at,
        stage=job.view.stage,
        progress=job.view.progress,
        redrives=job.redrives,
        redriven_at=job.redriven_at,
        analysis_deadline=job.analysis_deadline,
        is_received=any(entry.type == UploadReceived.TYPE for entry in job.history),
    )


def _is_asked(job: Job, ending: Ending) -> bool:
    if ending == Ending.PURGE:
        return job.purge_asked_at is not None
    return job.cancel_asked_at is not None and not _has_ended(job)


def _place(job: Job) -> tuple[datetime, str]:
    return job.created_at, job.job_id


def _has_ended(job: Job) -> bool:
    return is_terminal(job.view.status)


def _retry(job: Job) -> tuple[str | None, int | None]:
    return job.recording_of, job.retry_number


def _matches(job: Job, job_filter: JobFilter) -> bool:
    earliest, latest = job_filter.created_after, job_filter.created_before
    statuses = set(Status) if job_filter.status is None else {job_filter.status}
    return (
        job.view.status in statuses
        and job_filter.token_id in {None, job.token_id}
        and (earliest is None or job.created_at >= earliest)
        and (latest is None or job.created_at < latest)
    )
