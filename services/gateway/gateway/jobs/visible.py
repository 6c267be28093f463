"""Which jobs a caller sees: one's own, an operator everybody's. What is somebody else's is not there."""

from typing import Literal

from chassis.audit import Audit
from chassis.identity.caller import Caller
from contracts import api, problems
from contracts.events import JobProgressedData
from contracts.job import Job, progressed
from contracts.rights import Right
from gateway.jobs.documents import Jobs
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.web.problems import ProblemError

Done = Literal["read", "hear", "cancel", "purge", "retry", "stream", "share"]
"""What is done with a job."""


class VisibleJobs:
    """Finds jobs for callers, and has noted what operators do with those of others."""

    def __init__(self, jobs: Jobs, audit: Audit) -> None:
        self._jobs = jobs
        self._audit = audit

    async def find(self, caller: Caller, job_id: str, done: Done) -> Job:
        """Return the job without its history; ProblemError when there is none for this caller."""
        return await self._seen(caller, await self._jobs.find(job_id), done)

    async def find_whole(self, caller: Caller, job_id: str, done: Done) -> Job:
        """Return the job with its history; ProblemError when there is none for this caller."""
        return await self._seen(caller, await self._jobs.find_whole(job_id), done)

    async def page(
        self, caller: Caller, job_filter: JobFilter, after: Cursor | None, limit: int, metadata: MetadataAsked
    ) -> list[Job]:
        """Return the newest `limit` jobs that match and come after the cursor, without results."""
        if caller.may(Right.JOBS_ALL):
            if caller.is_known:
                await self._audit.note(caller, "list")
            return await self._jobs.page(job_filter, after, limit, metadata)
        if caller.owner is None:
            return []  # without an owner, the page would be one of everybody's jobs
        return await self._jobs.page(job_filter, after, limit, metadata, caller.owner)

    async def _seen(self, caller: Caller, job: Job | None, done: Done) -> Job:
        if job is None or not caller.sees(job.owner):
            raise ProblemError(problems.JOB_NOT_FOUND)
        if caller.is_known and caller.owner != job.owner:
            await self._audit.note(caller, done, job)
        return job


def shown_to(caller: Caller, job: Job) -> JobProgressedData:
    """Return the job's state as the caller is shown it: where its audio lies in S3 is for operators."""
    seen = progressed(job, job.revision, job.view)
    return seen if caller.may(Right.JOBS_ALL) else api.opaque(job.job_id, seen)
