"""Gives up jobs that nothing moves any more, so that no job stays in processing for ever, whatever has happened."""

from datetime import UTC, datetime, timedelta

import structlog

from chassis.periodic import Periodic, pace
from chassis.publishing import Broker
from contracts.events import JobExpired, JobExpiredData
from contracts.failures import FailureCode
from notifier import SERVICE
from notifier.jobs import Jobs, StandingJob

log = structlog.get_logger()

MAX_LOOK_SECONDS = 300.0


class Expiry:
    """Looks at intervals for jobs that stand still; every replica may do so, because a job expires only once.

    A job is given up when two looks in a row find it unchanged. A look that fails discards what the one before found,
    so that messages that waited during an outage can move their jobs first. A job that is not held must also have been
    told again since this process began to consume: what came of that would have been seen here.
    """

    def __init__(self, jobs: Jobs, broker: Broker, max_age: timedelta) -> None:
        self._jobs = jobs
        self._broker = broker
        self._max_age = max_age
        self._seen: set[tuple[str, int]] = set()
        self._looks = Periodic(
            lambda: self.look(datetime.now(UTC)),
            seconds=pace(max_age, MAX_LOOK_SECONDS),
            waiting="expiry waits",
        )

    def start(self) -> None:
        """Begin to look."""
        self._looks.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._looks.stop()

    async def look(self, now: datetime) -> None:
        """Give up the jobs that the last look found at the same revision.

        Raises what a back end raises, and ConnectionError while this process does not consume.
        """
        before, self._seen = self._seen, set()
        began = self._broker.consuming_since()
        if began is None or not await self._broker.consumes():
            raise ConnectionError("nothing moves jobs now")
        standing = await self._jobs.standing_since(now - self._max_age, began)
        for job in standing:
            if (job.job_id, job.revision) in before:
                await self._broker.publish(_expired(job))
                log.warning("job given up", job_id=job.job_id, held=job.is_held)
        self._seen = {(job.job_id, job.revision) for job in standing}


def _expired(job: StandingJob) -> JobExpired:
    code = FailureCode.HELD_TOO_LONG if job.is_held else FailureCode.NO_PROGRESS
    data = JobExpiredData(**job.recording.passed_on(), code=code)
    return JobExpired.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)
