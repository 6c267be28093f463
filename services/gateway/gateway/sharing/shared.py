"""The routes behind a share link: what one job shows to whoever has its address."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from contracts import api, problems
from contracts.api import SharedJob, ShareRight
from contracts.failures import preferred_language
from contracts.job import Job, progressed
from contracts.problems import ProblemKind
from gateway.audio import StoredAudio
from gateway.sharing.links import Link
from gateway.sharing.routes import Parts, ShareParts
from gateway.web.audio import IfRange, Range, Reader, audio_answers, audio_head, audio_response
from gateway.web.client import client_address
from gateway.web.parameters import AcceptLanguage
from gateway.web.problems import ProblemError

PRIVATE = {"Cache-Control": "private, no-store", "Referrer-Policy": "no-referrer"}
"""The address is a secret: no cache keeps what it shows, and no page that is reached from there learns it."""
Secret = Annotated[str, Path(description="As the link was made with")]
_AUDIO = api.SHARED_PATH + "/audio"
_NAME = "recording"
"""What the user called it may say who they are."""
router = APIRouter(tags=["sharing"])


@router.get(
    api.SHARED_PATH,
    response_model=SharedJob,
    summary="Read a shared job",
    responses=api.problem_answers(problems.LINK_NOT_FOUND, problems.UNAVAILABLE),
)
async def shared_job(parts: Parts, secret: Secret, accept_language: AcceptLanguage = None) -> Response:
    """Return the job as it stands, without anything that says whose it is or where it lies. Needs no login."""
    link, job = await _linked(parts, secret)
    audio_url = _AUDIO.format(secret=secret) if link.right == ShareRight.AUDIO else None
    seen = progressed(job, job.revision, job.view)
    body = api.shared_json(seen, audio_url, preferred_language(accept_language))
    return Response(body, media_type="application/json", headers=PRIVATE)


@router.get(
    _AUDIO,
    response_class=Response,
    summary="Read a shared job's recording",
    responses=audio_answers(problems.LINK_NOT_FOUND, problems.AUDIO_NOT_FOUND),
)
async def shared_audio(
    parts: Parts,
    request: Request,
    secret: Secret,
    range: Range = None,  # noqa: A002 - the header's name
    if_range: IfRange = None,
) -> Response:
    """Return the audio as it was sent, or a range of it, when the link's right is `audio`. Needs no login."""
    audio = await _linked_audio(parts, secret)
    reader = Reader(parts.readers, client_address(request), problems.AUDIO_NOT_FOUND)
    answer = await audio_response(parts.bucket, reader, audio, asked=range, if_range=if_range, name=_NAME)
    answer.headers.update(PRIVATE)
    return answer


@router.head(_AUDIO, include_in_schema=False)
async def shared_audio_head(parts: Parts, secret: Secret) -> Response:
    """Return the headers of the whole."""
    answer = audio_head(await _linked_audio(parts, secret), name=_NAME)
    answer.headers.update(PRIVATE)
    return answer


async def _linked_audio(parts: ShareParts, secret: str) -> StoredAudio:
    await parts.availability.require("S3", "MongoDB")
    link, job = await _linked(parts, secret)
    if link.right != ShareRight.AUDIO:
        raise _problem(problems.LINK_NOT_FOUND)
    audio = await parts.bucket.find_audio(job.job_id)
    if audio is None:
        raise _problem(problems.AUDIO_NOT_FOUND)
    return audio


async def _linked(parts: ShareParts, secret: str) -> tuple[Link, Job]:
    link = await parts.links.find(secret)
    job = None if link is None else await parts.jobs.find(link.job_id)
    if link is None or job is None:
        raise _problem(problems.LINK_NOT_FOUND)
    return link, job


def _problem(kind: ProblemKind) -> ProblemError:
    return ProblemError(kind, headers=PRIVATE)
