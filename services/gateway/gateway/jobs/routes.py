"""The routes that list, read, cancel and purge jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError

from contracts import api, problems
from contracts.api import JobDetails, JobList, JobState, RemovalAccepted
from contracts.failures import preferred_language
from contracts.job import Job, is_terminal
from gateway.availability import Availability
from gateway.jobs.documents import Jobs
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.jobs.removals import Ending
from gateway.jobs.visible import VisibleJobs, shown_to
from gateway.storage import Bucket
from gateway.web.callers import CallerIs
from gateway.web.headers import NOT_STORED
from gateway.web.parameters import AcceptLanguage, JobId, canonical
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.slots import Slots

log = structlog.get_logger()

JOBS_PER_PAGE = 20
MAX_JOBS_PER_PAGE = 100
_METADATA = "metadata."
_METADATA_PARAMETERS = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "style": "form",
    "explode": True,
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
    "example": {"metadata.user": "7"},
    "description": (
        "`metadata.<key>=<value>`, any number of them: only jobs whose metadata has all of these keys at its top with "
        "these values, or with lists that have them; `7` is the number and the text"
    ),
}


@dataclass(frozen=True)
class JobPage:
    """Which part of a list is asked for."""

    cursor: Annotated[str | None, Query(description="Where a page goes on, as `next` has it")] = None
    limit: Annotated[int, Query(ge=1, le=MAX_JOBS_PER_PAGE, description="How many jobs a page has at most")] = (
        JOBS_PER_PAGE
    )


@dataclass(frozen=True)
class JobParts:
    """What the routes of jobs and of their recordings work with."""

    jobs: Jobs
    visible: VisibleJobs
    bucket: Bucket
    look_soon: Callable[[], None]
    """Has what was just asked for told at once."""
    availability: Availability
    readers: Slots


Parts = Annotated[JobParts, given(JobParts)]
router = APIRouter(tags=["jobs"])


@router.get(
    "/tokens/analysis-result/{job_id}",
    response_model=JobState,
    summary="Read a job's state and result",
    responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
)
async def analysis_result(
    parts: Parts, caller: CallerIs, job_id: JobId, accept_language: AcceptLanguage = None
) -> Response:
    """Return the job as it stands; `result` is there once `status` is `completed`."""
    job = await parts.visible.find(caller, canonical(job_id), "read")
    state = api.state_json(job.job_id, shown_to(caller, job), preferred_language(accept_language))
    return Response(state, media_type="application/json", headers=NOT_STORED)


@router.get(
    api.JOBS_PATH,
    response_model_exclude_none=True,
    summary="List jobs, the newest first",
    responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
    openapi_extra={"parameters": [_METADATA_PARAMETERS]},
)
async def list_jobs(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    response: Response,
    job_filter: Annotated[JobFilter, Depends()],
    page: Annotated[JobPage, Depends()],
    accept_language: AcceptLanguage = None,
) -> JobList:
    """Return one page of one's own jobs, an operator everybody's; jobs that come meanwhile move none of the others."""
    limit, metadata = page.limit, _metadata_asked(request)
    found = await parts.visible.page(caller, job_filter, _parsed(page.cursor), limit + 1, metadata)
    language = preferred_language(accept_language)
    response.headers.update(NOT_STORED)
    return JobList(
        jobs=[api.listed(job.job_id, shown_to(caller, job), language) for job in found[:limit]],
        next=_next_page(job_filter, metadata, found[limit - 1], limit) if len(found) > limit else None,
    )


@router.get(
    api.JOBS_PATH + "/{job_id}",
    response_model=JobDetails,
    summary="Read everything that is kept of a job",
    responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
)
async def job_details(
    parts: Parts, caller: CallerIs, job_id: JobId, accept_language: AcceptLanguage = None
) -> Response:
    """Return the job with its history and, while it is under way, how many jobs are `ahead` of it."""
    job = await parts.visible.find_whole(caller, canonical(job_id), "read")
    ahead = None if is_terminal(job.view.status) else await parts.jobs.ahead(job)
    details = api.details_json(job, shown_to(caller, job), ahead, preferred_language(accept_language))
    return Response(details, media_type="application/json", headers=NOT_STORED)


@router.delete(
    api.JOBS_PATH + "/{job_id}",
    status_code=202,
    summary="Cancel a job, or purge it",
    responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def remove_job(
    parts: Parts,
    caller: CallerIs,
    job_id: JobId,
    purge: Annotated[bool, Query(description="Remove all that is kept of the job, its recording too")] = False,
) -> RemovalAccepted:
    """Cancel the job: it ends as `cancelled`, unless its own end is faster; a job that has ended stays as it is.

    With `purge`, its recording, its result and its history are removed too, whether it has ended or not. The job is
    not found any more from now on.
    """
    job_id = canonical(job_id)
    # RabbitMQ is not required: what was asked for stands in the job's document until it is done.
    await parts.availability.require("MongoDB")
    ending = Ending.PURGE if purge else Ending.CANCEL
    job = await parts.visible.find(caller, job_id, ending.value)
    await parts.jobs.ask_end(ending, [job_id], datetime.now(UTC))
    parts.look_soon()
    log.info("removal accepted", job_id=job_id, trace_id=job.traceparent[3:35], ending=ending)
    message = api.PURGE_MESSAGE if purge else api.CANCEL_MESSAGE
    return RemovalAccepted(job_id=job_id, status=job.view.status, message=message)


def _parsed(cursor: str | None) -> Cursor | None:
    try:
        return None if cursor is None else Cursor.parsed(cursor)
    except ValueError:
        raise ProblemError(problems.REQUEST_INVALID) from None


def _metadata_asked(request: Request) -> list[tuple[str, str]]:
    """Return what is asked of the jobs' metadata: every parameter `metadata.<key>`.

    Raises RequestValidationError for another that begins so, such as `metadata[key]`: all jobs are no answer to it.
    """
    named = request.query_params.multi_items()
    unknown = [name for name, _ in named if name.startswith("metadata") and not name.startswith(_METADATA)]
    if unknown:
        raise RequestValidationError([{"type": "metadata_filter", "loc": ("query", name)} for name in unknown])
    return [(name.removeprefix(_METADATA), value) for name, value in named if name.startswith(_METADATA)]


def _next_page(job_filter: JobFilter, metadata: MetadataAsked, last: Job, limit: int) -> str:
    """Return the address of the page after the one that ends with `last`."""
    asked = [*job_filter.parameters().items(), *((_METADATA + key, value) for key, value in metadata)]
    page = {"cursor": Cursor(last.created_at, last.job_id).text, "limit": str(limit)}
    return f"{api.JOBS_PATH}?{urlencode([*asked, *page.items()])}"
