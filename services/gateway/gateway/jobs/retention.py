"""Has ended jobs purged whose upload is older than RETENTION_DAYS."""

from datetime import UTC, datetime, timedelta

import structlog

from chassis.periodic import Periodic, pace
from gateway.jobs.documents import Jobs
from gateway.jobs.removals import Ending

log = structlog.get_logger()

MAX_LOOK_SECONDS = 60.0
JOBS_PER_LOOK = 500
MAX_PURGING = 5000
"""How many jobs may be waiting to be purged. With so many, the services that remove them are away."""


class Retention:
    """Purges ended jobs that were created more than `age` ago, none when it is None; every replica may do so."""

    def __init__(self, jobs: Jobs, age: timedelta | None) -> None:
        self._jobs = jobs
        self._age = age
        seconds = MAX_LOOK_SECONDS if age is None else pace(age, MAX_LOOK_SECONDS)
        self._looking = Periodic(self.look, seconds=seconds, waiting="retention waits")

    def start(self) -> None:
        """Begin to look, if there is an age."""
        if self._age is not None:
            self._looking.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._looking.stop()

    async def look(self) -> None:
        """Purge the jobs that are old enough now, up to JOBS_PER_LOOK."""
        if self._age is None:
            return
        limit = min(JOBS_PER_LOOK, MAX_PURGING - await self._jobs.purging())
        if limit <= 0:
            return
        now = datetime.now(UTC)
        old = await self._jobs.ended_before(now - self._age, limit)
        if old:
            await self._jobs.ask_end(Ending.PURGE, old, now)
            log.info("old jobs are to be purged", count=len(old))
