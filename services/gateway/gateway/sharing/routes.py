"""The routes that make, list and revoke a job's share links."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import structlog
from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from contracts import api, problems
from contracts.api import ShareLink, ShareLinkMade, ShareLinks, ShareRight
from gateway.availability import Availability
from gateway.jobs.documents import Jobs
from gateway.jobs.visible import VisibleJobs
from gateway.sharing.links import Link, Links, TooManyLinksError
from gateway.storage import Bucket
from gateway.web.callers import CallerIs
from gateway.web.headers import NOT_STORED
from gateway.web.parameters import JobId, canonical
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.slots import Slots
from gateway.web.small_bodies import REFUSALS, SmallBodyRoute

log = structlog.get_logger()

DAY_SECONDS = 24 * 3600
LONGEST_DAYS = 365


@dataclass(frozen=True)
class ShareParts:
    """What the routes of share links, and of what they show, work with."""

    links: Links
    jobs: Jobs
    visible: VisibleJobs
    bucket: Bucket
    availability: Availability
    readers: Slots


class LinkAsked(BaseModel):
    """What a new link shows, and for how long."""

    model_config = ConfigDict(extra="forbid")

    right: ShareRight = ShareRight.RESULT
    expires_in: int = Field(
        default=7 * DAY_SECONDS,
        ge=1,
        le=LONGEST_DAYS * DAY_SECONDS,
        strict=True,
        description="Seconds; a year at most",
    )


Parts = Annotated[ShareParts, given(ShareParts)]
LinkId = Annotated[str, Path(description="As the list of links has it", max_length=64)]
_PATH = api.JOBS_PATH + "/{job_id}/links"
router = APIRouter(tags=["sharing"], route_class=SmallBodyRoute)


@router.post(
    _PATH,
    status_code=201,
    summary="Make an address that shows a job without a login",
    responses=api.problem_answers(
        problems.JOB_NOT_FOUND, problems.TOO_MANY_LINKS, problems.REQUEST_INVALID, problems.UNAVAILABLE, *REFUSALS
    ),
)
async def make_link(
    parts: Parts, caller: CallerIs, response: Response, job_id: JobId, asked: LinkAsked
) -> ShareLinkMade:
    """Return an address that shows the job's state and result, and its recording where `right` is `audio`.

    This answer alone has the address: nobody can read it again.
    """
    job_id = canonical(job_id)
    await parts.visible.find(caller, job_id, "share")
    try:
        link, secret = await parts.links.make(job_id, asked.right, timedelta(seconds=asked.expires_in))
    except TooManyLinksError:
        raise ProblemError(problems.TOO_MANY_LINKS) from None
    if await parts.jobs.find(job_id) is None:
        # It was purged meanwhile, and its links may have been removed before this one was there.
        await parts.links.revoke(job_id, link.link_id)
        raise ProblemError(problems.JOB_NOT_FOUND)
    log.info("link made", job_id=job_id, link_id=link.link_id, right=link.right, expires_at=str(link.expires_at))
    response.headers.update({**NOT_STORED, "Referrer-Policy": "no-referrer"})
    return ShareLinkMade(**_shown(link).model_dump(), url=api.SHARED_PATH.format(secret=secret))


@router.get(
    _PATH,
    summary="List a job's share links",
    responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
)
async def list_links(parts: Parts, caller: CallerIs, response: Response, job_id: JobId) -> ShareLinks:
    """Return the links that have not expired, the oldest first, without their addresses."""
    job_id = canonical(job_id)
    await parts.visible.find(caller, job_id, "share")
    response.headers.update(NOT_STORED)
    return ShareLinks(links=[_shown(link) for link in await parts.links.of_job(job_id)])


@router.delete(
    _PATH + "/{link_id}",
    status_code=204,
    summary="Revoke a share link",
    responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.LINK_NOT_FOUND, problems.UNAVAILABLE),
)
async def revoke_link(parts: Parts, caller: CallerIs, job_id: JobId, link_id: LinkId) -> Response:
    """End the link: its address shows nothing from now on."""
    job_id = canonical(job_id)
    await parts.visible.find(caller, job_id, "share")
    if not await parts.links.revoke(job_id, link_id):
        raise ProblemError(problems.LINK_NOT_FOUND)
    log.info("link revoked", job_id=job_id, link_id=link_id)
    return Response(status_code=204, headers=NOT_STORED)


def _shown(link: Link) -> ShareLink:
    return ShareLink(id=link.link_id, right=link.right, created_at=link.created_at, expires_at=link.expires_at)
