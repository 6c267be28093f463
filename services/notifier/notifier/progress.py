"""Applies every event to its job's document, and returns what listeners are to be told."""

import structlog

from contracts.events import AnalysisRemoved, AudioRemoved, Event, JobProgressed
from contracts.job import Job, View, apply, changed, progressed
from notifier import SERVICE
from notifier.errors import ContendedError
from notifier.jobs import Jobs

log = structlog.get_logger()

REMOVED = (AudioRemoved.TYPE, AnalysisRemoved.TYPE)
"""The events after which nothing is left of a purged job but its document."""
ATTEMPTS = 10
"""How many tries there are to apply an event to a job that keeps changing meanwhile."""


class Progress:
    """Writes what events do to job documents."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def record(self, event: Event) -> JobProgressed | None:
        """Apply `event` and return what to tell listeners; None when nothing that they see has changed.

        For an event that was applied before, the same is returned again: a crash may have come between applying it and
        telling listeners. ContendedError when the job kept changing.
        """
        for _ in range(ATTEMPTS):
            job = await self._jobs.find(event.subject)
            if job is None:
                log.warning("event for an unknown job", type=event.type)
                return None
            change = apply(job, event)
            if change is None:
                return _told_again(job, event)
            if await self._jobs.update(job, change):
                return _told(changed(job, change), change.revision, change.view)
        raise ContendedError(event.subject)

    async def forget_if_removed(self, job_id: str) -> None:
        """Remove a purged job's document once all else that was kept of the job is removed.

        Events about the job that are still in flight find nothing to change.
        """
        await self._jobs.remove_if_removed(job_id, REMOVED)


def _told_again(job: Job, event: Event) -> JobProgressed | None:
    """Return what listeners are told of an event that was applied before."""
    entry = next(entry for entry in job.history if entry.event_id == event.id)
    return _told(job, entry.revision, entry.view)


def _told(job: Job, revision: int | None, view: View | None) -> JobProgressed | None:
    """Return the state for listeners; None when they see nothing new."""
    if revision is None or view is None:
        return None
    data = progressed(job, revision, view)
    return JobProgressed.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent, step=str(revision))
