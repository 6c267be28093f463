"""The route that makes a new job of a recording that is kept."""

import structlog
from fastapi import APIRouter, Request, Response

from contracts import api, events, problems
from contracts.api import RetryAccepted
from contracts.job import is_terminal
from gateway.audio import AudioGoneError
from gateway.jobs.links import job_links
from gateway.uploads.routes import Parts
from gateway.uploads.submissions import RetriesSpentError
from gateway.web.callers import CallerIs
from gateway.web.parameters import JobId, Traceparent, canonical
from gateway.web.problems import ProblemError
from gateway.web.quotas import JOBS_WAITING, UPLOAD_BYTES

log = structlog.get_logger()

router = APIRouter(tags=["jobs"])


@router.post(
    api.JOBS_PATH + "/{job_id}/retry",
    status_code=202,
    summary="Analyse a job's recording again",
    responses=api.problem_answers(
        problems.JOB_NOT_FOUND,
        problems.JOB_NOT_ENDED,
        problems.RECORDING_GONE,
        problems.RETRIES_SPENT,
        problems.TOO_MANY_REQUESTS,
        problems.TOO_MANY_BYTES,
        problems.TOO_MANY_JOBS,
        problems.UNAVAILABLE,
    ),
)
async def retry_job(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    response: Response,
    job_id: JobId,
    traceparent: Traceparent = None,
) -> RetryAccepted:
    """Begin a new job with the recording that is kept of one that has ended."""
    job_id = canonical(job_id)
    parts.quotas.check(request, JOBS_WAITING, UPLOAD_BYTES)
    # RabbitMQ is not required: as with an upload, the event waits in the job's document.
    await parts.availability.require("S3", "MongoDB")
    job = await parts.visible.find(caller, job_id, "retry")
    if not is_terminal(job.view.status):
        raise ProblemError(problems.JOB_NOT_ENDED)
    audio = await parts.bucket.find_audio(job_id)
    if audio is None:
        raise ProblemError(problems.RECORDING_GONE)
    try:
        event = await parts.submissions.accept_again(job, audio, events.continued_trace(traceparent))
    except AudioGoneError:
        raise ProblemError(problems.RECORDING_GONE) from None
    except RetriesSpentError:
        raise ProblemError(problems.RETRIES_SPENT) from None
    # It takes a copy of the recording.
    parts.quotas.add(request, UPLOAD_BYTES, audio.size_bytes)
    parts.quotas.add(request, JOBS_WAITING, 1)
    parts.publishing.publish_soon(event)
    log.info("retry accepted", job_id=event.subject, trace_id=event.trace_id, retry_of=job_id)
    links = job_links(event.subject)
    response.headers["Location"] = links["result_url"]
    return RetryAccepted(job_id=event.subject, retry_of=job_id, **links)
