"""Applies every event to its job's document, and says what listeners are to be told."""

from typing import Protocol

import structlog

from contracts.events import Event, JobProgressed
from contracts.job import Change, Job, apply, changed, progressed
from notifier import SERVICE
from notifier.errors import ContendedError

log = structlog.get_logger()

ATTEMPTS = 10
"""How often an event is applied anew because the job changed meanwhile."""


class Jobs(Protocol):
    """The job documents."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history."""

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change if the job is still at this revision and has not had the event."""

    async def remove(self, job_id: str) -> None:
        """Delete the job's document; done when there is none."""


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
                return _told(job, event)
            if await self._jobs.update(job, change):
                return _told(changed(job, change), event)
        raise ContendedError(event.subject)

    async def forget(self, job_id: str) -> None:
        """Remove all that is kept of the job here; events about it that are still under way find nothing to change."""
        await self._jobs.remove(job_id)


def _told(job: Job, event: Event) -> JobProgressed | None:
    """Return the state that `event` led to, if listeners can see it."""
    entry = next(entry for entry in job.history if entry.event_id == event.id)
    if entry.revision is None or entry.view is None:
        return None
    data = progressed(job, entry.revision, entry.view)
    step = str(entry.revision)
    return JobProgressed.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent, step=step)
