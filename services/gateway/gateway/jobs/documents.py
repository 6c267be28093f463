"""What the gateway asks of the job documents."""

from datetime import datetime, timedelta
from typing import Protocol

from contracts.job import Job
from gateway.audio import Recording
from gateway.jobs.listing import Cursor, JobFilter


class Jobs(Protocol):
    """The `jobs` collection. The gateway inserts and reads; every later change is the notifier's."""

    async def prepare(self) -> None:
        """Create the indexes."""

    async def insert(self, job: Job) -> bool:
        """Insert a new job; False when there is one with this id. Once it returns, the job cannot be lost."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job with its history."""

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when no such job is safe yet."""

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""

    async def page(self, job_filter: JobFilter, after: Cursor | None, limit: int) -> list[Job]:
        """Return the newest `limit` jobs that match the filter and come after the cursor, without their results."""

    async def ahead(self, job: Job) -> int:
        """Return how many jobs were created before this one and have not ended."""

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        """Return up to `limit` ended jobs that were created before `moment`, oldest first; none of `besides`."""

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        """Return up to `limit` events that have been in an outbox for so long, each with its job's id, oldest first.

        The jobs in `besides` are left out.
        """
