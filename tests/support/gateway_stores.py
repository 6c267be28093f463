"""The gateway's stores in memory: jobs, claims of keys, and objects, as the real ones behave, for unit tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from chassis.errors import AwayError, BackEndError
from contracts.events import Event
from contracts.job import Job, Status, is_terminal
from gateway.audio import UNKNOWN_TYPE, AudioGoneError, Recording, StoredAudio
from gateway.jobs.listing import Cursor, JobFilter
from gateway.uploads.idempotency import Claim

_WITHOUT_HISTORY: dict[str, Any] = {"history": [], "outbox": None, "audio": None}
_SUMMARY: dict[str, Any] = {**_WITHOUT_HISTORY, "result_json": None}
OBJECTS_PER_PAGE = 2


class Broker:
    """Takes events, after it has refused as many as `failures` says."""

    def __init__(self, failures: int = 0) -> None:
        self.published: list[Event] = []
        self.failures = failures

    async def publish(self, event: Event) -> None:
        """Keep the event."""
        if self.failures:
            self.failures -= 1
            raise BackEndError("RabbitMQ", "down")
        self.published.append(event)


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
        self.prepared = 0
        self.asked_unpublished: list[tuple[timedelta, int]] = []
        self.asked_ended: list[tuple[datetime, int]] = []
        self._done = [] if done is None else done

    async def prepare(self) -> None:
        """Count that this was asked."""
        await self._turn()
        self.prepared += 1

    async def insert(self, job: Job) -> bool:
        """Keep a new job."""
        await self._turn()
        if self.error:
            raise self.error
        if job.job_id in self.kept:
            return False
        self.kept[job.job_id] = job
        self._done.append("inserted")
        if self.unsure:
            self.unsure = False
            raise AwayError("MongoDB", "down")
        return True

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        await self._turn()
        job = self.kept.get(job_id)
        return None if job is None else job.model_copy(update=_WITHOUT_HISTORY)

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job."""
        await self._turn()
        job = self.kept.get(job_id)
        return None if job is None else job.model_copy(update={"outbox": None})

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from."""
        await self._turn()
        job = self.kept.get(job_id)
        return None if job is None or self.unseen else Recording(job.token_id, job.sha256)

    async def traceparent(self, job_id: str) -> str | None:
        """Return the job's trace."""
        await self._turn()
        return self.kept[job_id].traceparent if job_id in self.kept else None

    async def page(self, job_filter: JobFilter, after: Cursor | None, limit: int) -> list[Job]:
        """Return a page, the newest first."""
        await self._turn()
        found = [job for job in self.kept.values() if _matches(job, job_filter)]
        if after is not None:
            found = [job for job in found if _place(job) < (after.created_at, after.job_id)]
        return [job.model_copy(update=_SUMMARY) for job in sorted(found, key=_place, reverse=True)[:limit]]

    async def ahead(self, job: Job) -> int:
        """Return how many are ahead."""
        await self._turn()
        return sum(not _has_ended(other) and other.created_at < job.created_at for other in self.kept.values())

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        """Return ended jobs, the oldest first."""
        self.asked_ended.append((moment, limit))
        await self._turn()
        found = [job for job in self.kept.values() if _has_ended(job) and job.created_at < moment]
        found = [job for job in found if job.job_id not in besides]
        return [job.model_copy(update=_SUMMARY) for job in sorted(found, key=_place)[:limit]]

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return which have not ended."""
        await self._turn()
        return {job_id for job_id in job_ids if job_id in self.kept and not _has_ended(self.kept[job_id])}

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        """Return events that are marked still."""
        await self._turn()
        self.asked_unpublished.append((older_than, limit))
        before = datetime.now(UTC) - older_than
        found = [job for job in self.kept.values() if job.created_at < before and job.job_id not in besides]
        marked = [(job.job_id, job.outbox.encode()) for job in sorted(found, key=_place) if job.outbox is not None]
        return marked[:limit]

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise AwayError("MongoDB", "down")


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

    def expire(self) -> None:
        """Let every lease end."""
        self.kept = {key: replace(held, leased=False) for key, held in self.kept.items()}

    def _is_owners(self, key: str, owner: str) -> bool:
        return key in self.kept and self.kept[key].claim.owner == owner

    async def _turn(self, method: str) -> None:
        await asyncio.sleep(0)
        if method in self.broken:
            raise AwayError("MongoDB", method)


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


def _place(job: Job) -> tuple[datetime, str]:
    return job.created_at, job.job_id


def _has_ended(job: Job) -> bool:
    return is_terminal(job.view.status)


def _matches(job: Job, job_filter: JobFilter) -> bool:
    earliest, latest = job_filter.created_after, job_filter.created_before
    statuses = set(Status) if job_filter.status is None else {job_filter.status}
    return (
        job.view.status in statuses
        and job_filter.token_id in {None, job.token_id}
        and (earliest is None or job.created_at >= earliest)
        and (latest is None or job.created_at < latest)
    )
