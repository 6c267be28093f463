"""Purges ended jobs whose upload is older than RETENTION_DAYS."""

from datetime import UTC, datetime, timedelta

import structlog

from chassis.periodic import Periodic, pace
from chassis.publishing import Publisher
from gateway.jobs.documents import Jobs
from gateway.jobs.removals import purged

log = structlog.get_logger()

MAX_LOOK_SECONDS = 60.0
JOBS_PER_LOOK = 500
REPEATED_AFTER = timedelta(hours=1)
"""When a job that was purged and is still there is purged again."""
MAX_PURGED = 5000
"""How many purged jobs may still be there. With so many, the services that remove them are away: more would pile up."""


class Retention:
    """Purges ended jobs that were created more than `age` ago, none when it is None; every replica may do so."""

    def __init__(self, jobs: Jobs, publisher: Publisher, age: timedelta | None) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._age = age
        # The ids of purged jobs, and until when they are not purged again.
        self._purged: dict[str, datetime] = {}
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
        now = datetime.now(UTC)
        self._purged = {job_id: until for job_id, until in self._purged.items() if until > now}
        limit = min(JOBS_PER_LOOK, MAX_PURGED - len(self._purged))
        if limit <= 0:
            return
        jobs = await self._jobs.ended_before(now - self._age, list(self._purged), limit)
        for job in jobs:
            await self._publisher.publish(purged(job))
            self._purged[job.job_id] = now + REPEATED_AFTER
        if jobs:
            log.info("old jobs purged", count=len(jobs))
