"""What the gateway asks of the job documents."""

from datetime import datetime
from typing import Protocol

from contracts.job import Job
from gateway.audio import Recording
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.jobs.removals import Ending


class Jobs(Protocol):
    """The `jobs` collection. A job that is to be purged is not there any more for any question but `unfinished`."""

    async def insert(self, job: Job) -> bool:
        """Insert a new job; False when there is one with this id, or with this number among a recording's retries.

        Once it returns, the job cannot be lost.
        """

    async def retry_numbers(self, recording_of: str) -> set[int]:
        """Return the numbers of the retries that are kept of a recording, those that are being purged too."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job with its history."""

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when no such job is safe yet."""

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""

    async def page(
        self,
        job_filter: JobFilter,
        after: Cursor | None,
        limit: int,
        metadata: MetadataAsked = (),
        owner: str | None = None,
    ) -> list[Job]:
        """Return the newest `limit` jobs that match, have this metadata and come after the cursor, without results.

        With an owner, only this one's.
        """

    async def ahead(self, job: Job) -> int:
        """Return how many jobs were created before this one and have not ended."""

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """Return the ids of up to `limit` ended jobs that were created before `moment`, the oldest first."""

    async def ask_end(self, ending: Ending, job_ids: list[str], now: datetime) -> None:
        """Note that these jobs are to be cancelled or purged, which is to be told at once.

        A job that has ended cannot be cancelled. Nothing changes for a job for which this was asked before.
        """

    async def purging(self) -> int:
        """Return how many jobs are to be purged and are still there."""

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""
