"""The loop that looks at what stands still: kept webhooks first, then cancels and purges, then jobs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from prometheus_client import Counter

from chassis.errors import BackEndError, reason_of
from chassis.periodic import Periodic
from chassis.publishing import Publisher
from contracts import events, topology
from contracts.events import Event, InvalidEventError
from gateway.jobs import removals
from gateway.jobs.removals import Ending
from gateway.redrive import timing
from gateway.redrive.documents import Redrives, Removal
from gateway.redrive.timing import StandingJob, Tell, Wait
from gateway.webhook.kept import KeptWebhooks

log = structlog.get_logger()

LOOK_SECONDS = 1.0
JOBS_PER_LOOK = 500
WEBHOOKS_AT_ONCE = 20
"""How many kept webhooks are read at once; each may be as large as a result."""
AT_ONCE = 16
"""How many jobs one gateway claims and tells at the same time."""
BETWEEN_WEBHOOKS = timedelta(seconds=10)
"""Between two kept webhooks of one job; by then the first has been handled."""
MAX_QUEUED = 1000
"""With more messages than this in a queue on the way, nothing is added: a message that waits there is not lost."""
HANDLED_PER_SECOND = 16
"""How many messages a slow service handles. With more waiting than it can handle within REDRIVE_AFTER, a job that only
waits for its turn would be taken for one that stands still."""
REDRIVES_PER_SECOND = 50
MAX_WARNED = 1000
"""The most purges that the warning counts."""

TOLD_AGAIN = Counter("sori_redrives", "What was told again because nothing had come of it.", ["what"])


class Broker(Publisher, Protocol):
    """The broker as the redrive sees it."""

    async def is_up(self) -> bool:
        """Tell whether the broker answers; may raise when it does not."""

    async def depths(self, names: Sequence[str]) -> dict[str, int]:
        """Return the number of messages that wait in each of these queues; raises when the broker is away."""


class KeptOfJobs(Protocol):
    """Something that the gateway keeps of jobs besides their documents."""

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all that is kept of these jobs."""


class Redrive:
    """Tells again what stands still; every gateway may do so, because each job is claimed first.

    Its webhooks, and what else is `kept` of a job that is to be purged, are removed before the purge is told.
    """

    def __init__(
        self,
        redrives: Redrives,
        webhooks: KeptWebhooks,
        broker: Broker,
        after: timedelta,
        kept: Sequence[KeptOfJobs] = (),
    ) -> None:
        self._redrives = redrives
        self._webhooks = webhooks
        self._kept: Sequence[KeptOfJobs] = (webhooks, *kept)
        self._broker = broker
        self._after = after
        self._prepared = False
        self._most_queued = min(MAX_QUEUED, int(after.total_seconds() * HANDLED_PER_SECOND))
        self._allowed = float(REDRIVES_PER_SECOND)
        self._allowed_at = time.monotonic()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._looking = Periodic(self.look, seconds=LOOK_SECONDS, waiting="redrive waits", at_once=True)

    def start(self) -> None:
        """Begin to look."""
        self._looking.start()

    def look_soon(self) -> None:
        """Look at once: something is due."""
        self._looking.wake()

    async def stop(self) -> None:
        """Stop looking; what is claimed and not told is due again when the claim ends."""
        await self._looking.stop()

    async def warnings(self) -> list[str]:
        """Return a warning for /health while purges were told again and are still not done."""
        count = await self._redrives.purges_told_in_vain(MAX_WARNED)
        if not count:
            return []
        jobs = "1 job" if count == 1 else f"{count} or more jobs" if count == MAX_WARNED else f"{count} jobs"
        return [f"the purge of {jobs} is not done yet, see the uploader's log for the reason; told again until it is"]

    async def look(self) -> None:
        """Tell what is due now. What the broker does not take is due again soon."""
        if not self._prepared:
            await self._redrives.prepare()
            await self._webhooks.prepare()
            self._prepared = True
        for part in (self._publish_kept, self._tell_removals, self._tell_jobs):
            try:
                await part()
            except Exception as error:  # noqa: BLE001 - most likely an outage; one part must not hold up the others
                log.warning("redrive waits", reason=reason_of(error))

    async def _publish_kept(self) -> None:
        """Publish the kept webhooks, the oldest first, and those of one job some time apart.

        The bridge handles many messages at a time, in any order: the call that came first must be the one that counts.
        """
        while due := await self._webhooks.due(events.now(), WEBHOOKS_AT_ONCE):
            first_of: dict[str, Event] = {}
            for webhook in due:
                first_of.setdefault(webhook.subject, webhook)
            first = list(first_of.values())
            await self._webhooks.hold_back_others(first, events.now() + BETWEEN_WEBHOOKS)
            answers = await asyncio.gather(*map(self._broker.publish, first), return_exceptions=True)
            published = [webhook for webhook, answer in zip(first, answers, strict=True) if answer is None]
            await self._webhooks.remove([webhook.id for webhook in published])
            TOLD_AGAIN.labels("webhook").inc(len(published))
            log.info("kept webhooks published", jobs=[webhook.subject for webhook in published])
            for failure in filter(None, answers):
                raise failure

    async def _tell_removals(self) -> None:
        purges = await self._redrives.removals(Ending.PURGE, events.now(), JOBS_PER_LOOK)
        if purges:
            job_ids = [removal.job_id for removal in purges]
            for kept in self._kept:
                await kept.forget(job_ids)
        due = [*purges, *await self._redrives.removals(Ending.CANCEL, events.now(), JOBS_PER_LOOK)]
        if due and await self._broker.is_up():
            await self._each(self._tell_removal(removal) for removal in due)

    async def _tell_removal(self, removal: Removal) -> None:
        until = events.now() + timing.CLAIM
        if not await self._redrives.claim_removal(removal, until):
            return
        event = removals.event_of(removal.ending, removal.job_id, removal.recording, removal.traceparent)
        is_repeat = removal.redrives > 0
        told = await self._tell(event, removal.redrives, until, lambda: self._broker.publish(event, redriven=is_repeat))
        if told and is_repeat:
            TOLD_AGAIN.labels(removal.ending.value).inc()

    async def _tell_jobs(self) -> None:
        now = events.now()
        # First those that nobody may have seen: each of them waits since its upload was accepted.
        repeats: list[StandingJob] = []
        while not repeats and (unseen := await self._redrives.due(now, received=False, limit=JOBS_PER_LOOK)):
            # What this loop has told before may only wait for its turn, like any other job that stands still.
            repeats = [job for job in unseen if job.redrives]
            first = [job for job in unseen if not job.redrives]
            if first and not await self._tell_all_first(first):
                return
        await self._tell_standing([*repeats, *await self._redrives.due(now, received=True, limit=JOBS_PER_LOOK)])

    async def _tell_all_first(self, jobs: Sequence[StandingJob]) -> bool:
        """Tell as many of these jobs as the queues have room for; return whether that was all of them."""
        room = MAX_QUEUED - await self._longest_queue()
        await self._each(self._tell_first(job) for job in jobs[: max(room, 0)])
        return room >= len(jobs)

    async def _tell_standing(self, standing: Sequence[StandingJob]) -> None:
        decided = [(job, timing.decide(job, events.now(), self._after)) for job in standing]
        waits = [(job, decision) for job, decision in decided if isinstance(decision, Wait)]
        told = [(job, decision) for job, decision in decided if isinstance(decision, Tell)]
        if waits:
            await self._redrives.postpone(waits)
        if told and await self._longest_queue() <= self._most_queued:
            granted = self._granted(len(told))
            await self._each(self._tell_again(job, decision.redrives) for job, decision in told[:granted])

    async def _longest_queue(self) -> int:
        return max((await self._broker.depths(topology.QUEUES_ON_THE_WAY)).values(), default=0)

    def _granted(self, wanted: int) -> int:
        """Return how many redrives may be made now, of as many as are wanted."""
        now = time.monotonic()
        self._allowed += (now - self._allowed_at) * REDRIVES_PER_SECOND
        self._allowed = min(self._allowed, REDRIVES_PER_SECOND)
        self._allowed_at = now
        granted = min(wanted, int(self._allowed))
        self._allowed -= granted
        return granted

    async def _tell_first(self, job: StandingJob) -> None:
        """Publish upload.received to all its subscribers, as if for the first time."""
        await self._claim_and_tell(job, job.redrives, self._broker.publish, "upload")

    async def _tell_again(self, job: StandingJob, redrives: int) -> None:
        """Tell the uploader alone: it tells what it has kept, and each service after it what it knows.

        All subscribers are told of a job that they may not have seen.
        """
        if not job.is_received:
            await self._tell_first(job)
            return

        async def redrive(event: Event) -> None:
            await self._broker.redrive(event, topology.UPLOADER_UPLOAD_RECEIVED)

        await self._claim_and_tell(job, redrives, redrive, "job")

    async def _claim_and_tell(
        self, job: StandingJob, redrives: int, publish: Callable[[Event], Awaitable[None]], what: str
    ) -> None:
        until = events.now() + timing.CLAIM
        text = await self._redrives.claim(job, until)
        if text is None:
            return
        try:
            event = events.decode(text.encode())
        except InvalidEventError as error:
            # A newer gateway may have written it, and will tell it. Until then the job counts as told in vain.
            log.error("a job holds no event that can be told", job_id=job.job_id, reason=str(error))  # noqa: TRY400 - a traceback adds nothing to the reason
            now = events.now()
            await self._redrives.told(job.job_id, until, redrives, now, now + timing.LONGEST * self._after)
            return
        if await self._tell(event, redrives, until, lambda: publish(event)):
            TOLD_AGAIN.labels(what).inc()

    async def _tell(
        self, event: Event, redrives: int, claimed: datetime, publish: Callable[[], Awaitable[None]]
    ) -> bool:
        """Publish, and note when the job is looked at again; tell whether it was published."""
        try:
            await publish()
        except BackEndError as error:
            log.warning("event not told yet", job_id=event.subject, type=event.type, reason=reason_of(error))
            await self._redrives.hurry(event.subject, claimed, events.now() + timing.AFTER_FAILURE)
            return False
        now = events.now()
        then = timing.next_look(now, self._after, redrives + 1)
        await self._redrives.told(event.subject, claimed, redrives + 1, now, then)
        log.info("event told", job_id=event.subject, type=event.type, trace_id=event.trace_id, times=redrives + 1)
        return True

    async def _each(self, tellings: Iterable[Awaitable[None]]) -> None:
        async def one(telling: Awaitable[None]) -> None:
            async with self._at_once:
                await telling

        await asyncio.gather(*(one(telling) for telling in tellings))
