"""Gives up jobs that nothing moves any more: whatever has happened, no job stays in processing for ever."""

from datetime import UTC, datetime, timedelta

import structlog

from chassis.periodic import Periodic
from chassis.publishing import Broker
from contracts.events import JobExpired, JobExpiredData
from contracts.failures import FailureCode
from notifier import SERVICE
from notifier.jobs import Jobs, StandingJob

log = structlog.get_logger()

MARKED_AGES = 2
"""After so many ages a job is given up though its upload.received is still to be published: nothing will do that."""
LOOKS_PER_AGE = 10
MAX_LOOK_SECONDS = 300.0


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
        self._looks = Periodic(
            lambda: self.look(datetime.now(UTC)),
            seconds=min(max_age.total_seconds() / LOOKS_PER_AGE, MAX_LOOK_SECONDS),
            waiting="expiry waits",
        )

    def start(self) -> None:
        """Begin to look."""
        self._looks.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._looks.stop()

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
