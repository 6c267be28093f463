"""Applies every event to its job's document, and says what listeners are to be told."""

import structlog

from contracts.events import Event, JobProgressed
from contracts.job import Job, View, apply, changed, progressed
from notifier import SERVICE
from notifier.errors import ContendedError
from notifier.jobs import Jobs

log = structlog.get_logger()

ATTEMPTS = 10
"""How often an event is applied anew because the job changed meanwhile."""


class Progress:
    """The one writer of job documents after their insertion."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def record(self, event: Event) -> JobProgressed | None:
        """Apply `event` and return what to tell listeners, None when nothing they see has changed.

        An event that was applied before is told again: a crash may have come between applying and telling.
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

    async def forget(self, job_id: str) -> None:
        """Remove all that is kept of the job here; events about it that are still under way find nothing to change."""
        await self._jobs.remove(job_id)


def _told_again(job: Job, event: Event) -> JobProgressed | None:
    """Return what an event that the job has had before led to."""
    entry = next(entry for entry in job.history if entry.event_id == event.id)
    return _told(job, entry.revision, entry.view)


def _told(job: Job, revision: int | None, view: View | None) -> JobProgressed | None:
    """Return the state for listeners, None when there is nothing new to be seen."""
    if revision is None or view is None:
        return None
    data = progressed(job, revision, view)
    return JobProgressed.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent, step=str(revision))
