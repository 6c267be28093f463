"""Takes jobs back: what cancels one, what purges one, and who purges those that ended long ago (RETENTION_DAYS)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from contracts.events import Event, JobCancelled, JobCancelledData, JobPurged, JobPurgedData
from contracts.job import Job
from gateway import SERVICE

log = structlog.get_logger()

LOOKS_PER_AGE = 10
MAX_LOOK_SECONDS = 60.0
JOBS_PER_LOOK = 500
ASKED_AGAIN = timedelta(hours=1)
"""When a job that was purged and is still there is purged again."""
MAX_ASKED = 5000
"""Purged jobs that are still there; with so many their owners are away, and more would only pile up."""


class Jobs(Protocol):
    """The job documents."""

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        """Return up to `limit` jobs that have ended and came before `moment`, oldest first; none of `besides`."""


class Publisher(Protocol):
    """The broker."""

    async def publish(self, event: Event) -> None:
        """Return once the event is safe."""


class Retention:
    """Purges ended jobs once they are older than `age`, by their upload, if there is one; any replica may do so."""

    def __init__(self, jobs: Jobs, publisher: Publisher, age: timedelta | None) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._age = age
        self._asked: dict[str, datetime] = {}
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        if self._age is not None:
            self._looking = asyncio.create_task(self._run(self._age))

    async def stop(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _run(self, age: timedelta) -> None:
        while True:
            await asyncio.sleep(min(age.total_seconds() / LOOKS_PER_AGE, MAX_LOOK_SECONDS))
            try:
                await self._look(age)
            except Exception as error:  # noqa: BLE001 - an outage: the next look tries again
                log.warning("retention waits", reason=type(error).__name__)

    async def _look(self, age: timedelta) -> None:
        now = datetime.now(UTC)
        self._asked = {job_id: until for job_id, until in self._asked.items() if until > now}
        limit = min(JOBS_PER_LOOK, MAX_ASKED - len(self._asked))
        if limit <= 0:
            return
        jobs = await self._jobs.ended_before(now - age, list(self._asked), limit)
        for job in jobs:
            await self._publisher.publish(purged(job))
            self._asked[job.job_id] = now + ASKED_AGAIN
        if jobs:
            log.info("old jobs purged", count=len(jobs))


def cancelled(job: Job) -> JobCancelled:
    """Return the event of a job that its user wants no more; asked for again it has the same id."""
    data = JobCancelledData(token_id=job.token_id)
    return JobCancelled.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)


def purged(job: Job) -> JobPurged:
    """Return the event of a job of which nothing is to be kept; asked for again it has the same id."""
    data = JobPurgedData(token_id=job.token_id)
    return JobPurged.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)
