"""The notifier's collection in memory, for unit tests: it makes the same conditional changes as the real one."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from contracts.job import Change, Job, Stage, Status, changed, is_terminal
from notifier.jobs import StandingJob


class Jobs:
    """The collection. A read takes `pauses` turns of the event loop, and every call raises `error` when that is set.

    The next `conflicts` updates fail, as if another writer had come first.
    """

    def __init__(self, *jobs: Job, conflicts: int = 0, pauses: Callable[[], int] = lambda: 1) -> None:
        self.jobs = {job.job_id: job for job in jobs}
        self.conflicts = conflicts
        self.error: Exception | None = None
        self.reads: list[str] = []
        self.looks: list[list[str]] = []
        self.updates = 0
        self.at_once = self.most_at_once = 0
        self._pauses = pauses

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history; None when there is none."""
        self.reads.append(job_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            # Read first, then wait: what is returned may be out of date.
            found = self.jobs.get(job_id)
            for _ in range(self._pauses()):
                await asyncio.sleep(0)
            self._reach()
            return None if found is None else found.model_copy(update={"upload_received": None})
        finally:
            self.at_once -= 1

    async def revisions(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the revision of each of these jobs; one that is not there is left out."""
        self.looks.append(sorted(job_ids))
        await asyncio.sleep(0)
        self._reach()
        return {job_id: self.jobs[job_id].revision for job_id in job_ids if job_id in self.jobs}

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job has changed since it was read, in its revision or its history."""
        await asyncio.sleep(0)
        self._reach()
        self.updates += 1
        if self.conflicts:
            self.conflicts -= 1
            return False
        now = self.jobs.get(job.job_id)
        if now is None or now.revision != job.revision or len(now.history) != len(job.history):
            return False
        after = changed(now, change)
        if is_terminal(after.view.status):
            after = after.model_copy(update={"upload_received": None})
        self.jobs[job.job_id] = after
        return True

    async def remove_if_removed(self, job_id: str, removed: Sequence[str]) -> None:
        """Delete the job if all of this was removed."""
        await asyncio.sleep(0)
        self._reach()
        if job_id in self.jobs and set(removed) <= set(self.jobs[job_id].removed):
            del self.jobs[job_id]

    async def standing_since(self, moment: datetime, redriven_since: datetime) -> Sequence[StandingJob]:
        """Return the unfinished jobs that have not changed since `moment`, the oldest first."""
        await asyncio.sleep(0)
        self._reach()
        standing = [
            job
            for job in self.jobs.values()
            if job.view.status == Status.PROCESSING
            and job.created_at < moment
            and job.view.updated_at < moment
            and (
                job.view.stage == Stage.HELD
                or job.publish_at is None
                or (job.redriven_at is not None and job.redriven_at > redriven_since)
            )
        ]
        return [
            StandingJob(job.job_id, job.recording, job.traceparent, job.revision, job.view.stage == Stage.HELD)
            for job in sorted(standing, key=lambda job: job.created_at)
        ]

    def _reach(self) -> None:
        if self.error:
            raise self.error
