"""The events that cancel a job and purge it."""

from contracts.events import JobCancelled, JobCancelledData, JobPurged, JobPurgedData
from contracts.job import Job
from gateway import SERVICE


def cancelled(job: Job) -> JobCancelled:
    """Return the event that cancels a job; a second one for the same job has the same id."""
    data = JobCancelledData(token_id=job.token_id)
    return JobCancelled.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)


def purged(job: Job) -> JobPurged:
    """Return the event that removes all that is kept of a job; a second one for the same job has the same id."""
    data = JobPurgedData(token_id=job.token_id)
    return JobPurged.new(job.job_id, data, source=SERVICE, traceparent=job.traceparent)
