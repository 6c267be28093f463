"""How users end a job from outside, and the events that tell it."""

from enum import StrEnum

from contracts.events import JobCancelled, JobCancelledData, JobPurged, JobPurgedData, RecordingData
from gateway import SERVICE


class Ending(StrEnum):
    """What a user may ask for."""

    CANCEL = "cancel"
    """No result is wanted."""
    PURGE = "purge"
    """Nothing of the job is to be kept."""


def event_of(ending: Ending, job_id: str, recording: RecordingData, traceparent: str) -> JobCancelled | JobPurged:
    """Return the event that tells it; a repeat has the same id."""
    if ending == Ending.CANCEL:
        cancelled = JobCancelledData(**recording.passed_on())
        return JobCancelled.new(job_id, cancelled, source=SERVICE, traceparent=traceparent)
    purged = JobPurgedData(**recording.passed_on())
    return JobPurged.new(job_id, purged, source=SERVICE, traceparent=traceparent)
