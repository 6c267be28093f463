"""Gives up jobs that nothing moves any more: whatever has happened, no job stays in processing for ever."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from contracts.events import JobExpired, JobExpiredData
from contracts.failures import FailureCode
from notifier import SERVICE

log = structlog.get_logger()

MARKED_AGES = 2
"""After so many ages a job is given up though its upload.received is still to be published: nothing will do that."""
LOOKS_PER_AGE = 10
MAX_LOOK_SECONDS = 300.0


@dataclass(frozen=True)
class StandingJob:
    """What is to be known of a job that has stood still for long."""

    job_id: str
    token_id: str
    traceparent: str
    revision: int
    is_held: bool


class Jobs(Protocol):
    """The job documents."""

    async def standing_since(self, moment: datetime, marked_since: datetime) -> Sequence[StandingJob]:
        """Return some of the unfinished jobs that have not changed since `moment`, the oldest first.

        None whose upload.received is still to be published, for that moves it, unless it came before `marked_since`.
        """


class Broker(Protocol):
    """Where what moves jobs waits, and what gives them up is published."""

    async def consumes(self) -> bool:
        """Tell whether this process takes in what moves jobs."""

    async def publish(self, event: JobExpired) -> None:
        """Return once `event` is safe with the broker."""


class Expiry:
    """Looks again and again; any number of replicas may do so, for a job expires once.

    It acts at the second look in a row that finds a job as it was. A look that fails forgets the one before: after an
    outage, what waited meanwhile moves jobs first.
    """

    def __init__(self, jobs: Jobs, broker: Broker, max_age: timedelta) -> None:
        self._jobs = jobs
        self._broker = broker
        self._max_age = max_age
        self._seen: set[tuple[str, int]] = set()
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._looking = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(self._max_age.total_seconds() / LOOKS_PER_AGE, MAX_LOOK_SECONDS))
            try:
                await self.look(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 - an outage: the look after the next one acts
                log.warning("expiry waits", reason=type(error).__name__)

    async def look(self, now: datetime) -> None:
        """Give up the jobs that the last look found too, just as they are; raises what a back end raises."""
        before, self._seen = self._seen, set()
        if not await self._broker.consumes():
            raise ConnectionError("nothing moves jobs now")
        standing = await self._jobs.standing_since(now - self._max_age, now - MARKED_AGES * self._max_age)
        for job in standing:
            if (job.job_id, job.revision) in before:
                await self._broker.publish(_expired(job))
                log.warning("job given up", job_id=job.job_id, held=job.is_held)
        self._seen = {(job.job_id, job.revision) for job in standing}


def _expired(job: StandingJob) -> JobExpired:
    code = FailureCode.HELD_TOO_LONG if job.is_held else FailureCode.NO_PROGRESS
    data = JobExpiredData(token_id=job.token_id, code=code)
    return JobExpired.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)
