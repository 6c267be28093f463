"""The routes that list, read, cancel, purge and retry jobs."""

from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Query, Response
from pydantic import AfterValidator, AwareDatetime

from contracts import api, events, problems
from contracts.api import JobDetails, JobList, JobState, RemovalAccepted, RetryAccepted
from contracts.failures import preferred_language
from contracts.job import Job, Status, is_terminal, progressed
from gateway.availability import Availability
from gateway.errors import AudioGoneError, ProblemError
from gateway.listing import Place, Wanted, in_utc
from gateway.outbox import Outbox
from gateway.rabbitmq import RabbitMQ
from gateway.removals import cancelled, purged
from gateway.routes.addresses import AcceptLanguage, JobId, Traceparent, canonical
from gateway.routes.uploads import job_links
from gateway.storage import Storage
from gateway.store import Jobs
from gateway.submissions import Submissions

log = structlog.get_logger()

NOT_STORED = {"Cache-Control": "no-store"}
JOBS_PER_PAGE = 20
MAX_JOBS_PER_PAGE = 100

Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]
ByStatus = Annotated[Status | None, Query(description="Only jobs of this status")]
ByToken = Annotated[str | None, Query(description="Only jobs of this token")]
After = Annotated[Moment | None, Query(description="Only jobs that came at this moment or later (RFC 3339)")]
Before = Annotated[Moment | None, Query(description="Only jobs that came before this moment (RFC 3339)")]
CursorText = Annotated[str | None, Query(description="Where a page goes on, as `next` has it")]
Limit = Annotated[int, Query(ge=1, le=MAX_JOBS_PER_PAGE, description="How many jobs a page has at most")]


def reading_routes(jobs: Jobs) -> APIRouter:
    """Return the routes that say how jobs stand."""
    router = APIRouter(tags=["jobs"])

    @router.get(
        "/tokens/analysis-result/{job_id}",
        response_model=JobState,
        summary="Read a job's state and result",
        responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
    )
    async def analysis_result(job_id: JobId, accept_language: AcceptLanguage = None) -> Response:
        """Return the job as it stands; `result` is there once `status` is `completed`."""
        job = await _known(jobs, canonical(job_id))
        language = preferred_language(accept_language)
        state = api.state_json(job.job_id, progressed(job, job.revision, job.view), language)
        return Response(state, media_type="application/json", headers=NOT_STORED)

    @router.get(
        api.JOBS_PATH,
        response_model_exclude_none=True,
        summary="List jobs, the newest first",
        responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
    )
    async def list_jobs(
        *,
        response: Response,
        status: ByStatus = None,
        token_id: ByToken = None,
        created_after: After = None,
        created_before: Before = None,
        cursor: CursorText = None,
        limit: Limit = JOBS_PER_PAGE,
        accept_language: AcceptLanguage = None,
    ) -> JobList:
        """Return one page; jobs that come while pages are read move none of those that were there."""
        wanted = Wanted(status, token_id, created_after, created_before)
        found = await jobs.page(wanted, _place(cursor), limit + 1)
        language = preferred_language(accept_language)
        response.headers.update(NOT_STORED)
        return JobList(
            jobs=[api.listed(job, language) for job in found[:limit]],
            next=_next_page(wanted, found[limit - 1], limit) if len(found) > limit else None,
        )

    @router.get(
        api.JOBS_PATH + "/{job_id}",
        response_model=JobDetails,
        summary="Read everything that is kept of a job",
        responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
    )
    async def job_details(job_id: JobId, accept_language: AcceptLanguage = None) -> Response:
        """Return the job with its history and, while it is under way, how many jobs are `ahead` of it."""
        job = await jobs.find_whole(canonical(job_id))
        if job is None:
            raise ProblemError(problems.JOB_NOT_FOUND)
        ahead = None if is_terminal(job.view.status) else await jobs.ahead(job)
        details = api.details_json(job, ahead, preferred_language(accept_language))
        return Response(details, media_type="application/json", headers=NOT_STORED)

    return router


def removal_routes(jobs: Jobs, rabbitmq: RabbitMQ, back_ends: Availability) -> APIRouter:
    """Return the route that cancels and purges jobs."""
    router = APIRouter(tags=["jobs"])

    @router.delete(
        api.JOBS_PATH + "/{job_id}",
        status_code=202,
        summary="Cancel a job, or purge it",
        responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.REQUEST_INVALID, problems.UNAVAILABLE),
    )
    async def remove_job(
        job_id: JobId,
        purge: Annotated[bool, Query(description="Remove all that is kept of the job, its recording too")] = False,
    ) -> RemovalAccepted:
        """Cancel the job: it ends as `cancelled`, unless its own end is faster; a job that has ended stays as it is.

        With `purge`, its recording, its result and its history are removed too, whether it has ended or not.
        """
        job_id = canonical(job_id)
        await back_ends.require("RabbitMQ", "MongoDB")
        job = await _known(jobs, job_id)
        event = purged(job) if purge else cancelled(job)
        await rabbitmq.publish(event)
        log.info("removal accepted", job_id=job_id, trace_id=event.trace_id, type=event.type)
        message = api.PURGE_MESSAGE if purge else api.CANCEL_MESSAGE
        return RemovalAccepted(job_id=job_id, status=job.view.status, message=message)

    return router


def retry_routes(
    jobs: Jobs, storage: Storage, submissions: Submissions, outbox: Outbox, back_ends: Availability
) -> APIRouter:
    """Return the route that analyses a kept recording again."""
    router = APIRouter(tags=["jobs"])

    @router.post(
        api.JOBS_PATH + "/{job_id}/retry",
        status_code=202,
        summary="Analyse a job's recording again",
        responses=api.problem_answers(
            problems.JOB_NOT_FOUND, problems.JOB_NOT_ENDED, problems.RECORDING_GONE, problems.UNAVAILABLE
        ),
    )
    async def retry_job(response: Response, job_id: JobId, traceparent: Traceparent = None) -> RetryAccepted:
        """Begin a new job with the recording that is kept of one that has ended."""
        job_id = canonical(job_id)
        # Not RabbitMQ: like an upload's, the event waits in the job's outbox.
        await back_ends.require("S3", "MongoDB")
        job = await _known(jobs, job_id)
        if not is_terminal(job.view.status):
            raise ProblemError(problems.JOB_NOT_ENDED)
        audio = await storage.find_audio(job_id)
        if audio is None:
            raise ProblemError(problems.RECORDING_GONE)
        try:
            event = await submissions.accept_again(job, audio, events.continued_trace(traceparent))
        except AudioGoneError:
            raise ProblemError(problems.RECORDING_GONE) from None
        outbox.publish_soon(event)
        log.info("retry accepted", job_id=event.subject, trace_id=event.trace_id, retry_of=job_id)
        links = job_links(event.subject)
        response.headers["Location"] = links["result_url"]
        return RetryAccepted(job_id=event.subject, retry_of=job_id, **links)

    return router


async def _known(jobs: Jobs, job_id: str) -> Job:
    job = await jobs.find(job_id)
    if job is None:
        raise ProblemError(problems.JOB_NOT_FOUND)
    return job


def _place(cursor: str | None) -> Place | None:
    try:
        return None if cursor is None else Place.at(cursor)
    except ValueError:
        raise ProblemError(problems.REQUEST_INVALID) from None


def _next_page(wanted: Wanted, last: Job, limit: int) -> str:
    """Return the address of the page after the one that ends with `last`."""
    query: dict[str, Any] = {
        "status": wanted.status and wanted.status.value,
        "token_id": wanted.token_id,
        "created_after": wanted.created_after and wanted.created_after.isoformat(),
        "created_before": wanted.created_before and wanted.created_before.isoformat(),
        "cursor": Place(last.created_at, last.job_id).cursor,
        "limit": limit,
    }
    given = {name: value for name, value in query.items() if value is not None}
    return f"{api.JOBS_PATH}?{urlencode(given)}"
