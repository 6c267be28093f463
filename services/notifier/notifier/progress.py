"""Applies every event to its job's document, and returns what listeners are to be told."""

from datetime import datetime, timedelta

import structlog

from contracts import events
from contracts.events import AnalysisProgressed, AnalysisRemoved, AudioRemoved, Event, JobProgressed
from contracts.job import Job, View, apply, changed, progressed
from notifier import SERVICE
from notifier.errors import ContendedError, TooSoonError
from notifier.jobs import Jobs

log = structlog.get_logger()

REMOVED = (AudioRemoved.TYPE, AnalysisRemoved.TYPE)
"""The events after which nothing is left of a purged job but its document."""
ATTEMPTS = 10
"""How many tries there are to apply an event to a job that keeps changing meanwhile."""
BETWEEN_PROGRESS = timedelta(seconds=1.1)
"""Between two changes of an analysis' progress. With some room for their way, listeners get one a second at most."""


class Progress:
    """Writes what events do to job documents."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def record(self, event: Event) -> JobProgressed | None:
        """Apply `event` and return what to tell listeners; None when nothing that they see has changed.

        For an event that was applied before, the same is returned again: a crash may have come between applying it and
        telling listeners. ContendedError when the job kept changing, TooSoonError for what is passed on later.
        """
        if isinstance(event, AnalysisProgressed):
            # It counts from when it is passed on, not from when it was made: it may have waited.
            event = event.model_copy(update={"time": events.now()})
        for _ in range(ATTEMPTS):
            job = await self._jobs.find(event.subject)
            if job is None:
                log.warning("event for an unknown job", type=event.type)
                return None
            change = apply(job, event)
            if change is None:
                return _told_again(job, event)
            if isinstance(event, AnalysisProgressed):
                _require_turn(job, event.time)
            if await self._jobs.update(job, change):
                return _told(changed(job, change), change.revision, change.view)
        raise ContendedError(event.subject)

    async def forget_if_removed(self, job_id: str) -> None:
        """Remove a purged job's document once all else that was kept of the job is removed.

        Events about the job that are still in flight find nothing to change.
        """
        await self._jobs.remove_if_removed(job_id, REMOVED)


def _told_again(job: Job, event: Event) -> JobProgressed | None:
    """Return what listeners are told of an event that was applied before; None when it changes nothing."""
    entry = next((entry for entry in job.history if entry.event_id == event.id), None)
    return None if entry is None else _told(job, entry.revision, entry.view)


def _require_turn(job: Job, now: datetime) -> None:
    """Raise TooSoonError when the progress of this job's analysis was passed on a moment ago."""
    passed_on = [entry.time for entry in job.history if entry.type == AnalysisProgressed.TYPE]
    if passed_on and (left := max(passed_on) + BETWEEN_PROGRESS - now) > timedelta(0):
        raise TooSoonError(min(left, BETWEEN_PROGRESS).total_seconds())


def _told(job: Job, revision: int | None, view: View | None) -> JobProgressed | None:
    """Return the state for listeners; None when they see nothing new."""
    if revision is None or view is None:
        return None
    data = progressed(job, revision, view)
    return JobProgressed.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent, step=str(revision))
