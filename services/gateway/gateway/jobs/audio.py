"""The route of a job's recording."""

from fastapi import APIRouter, Request, Response

from chassis.identity.caller import Caller
from contracts import api, problems
from gateway.audio import StoredAudio
from gateway.jobs.routes import JobParts, Parts
from gateway.web.audio import IfRange, Range, Reader, audio_answers, audio_head, audio_response
from gateway.web.callers import CallerIs
from gateway.web.client import client_of
from gateway.web.parameters import JobId, canonical
from gateway.web.problems import ProblemError

_PATH = api.JOBS_PATH + "/{job_id}/audio"

router = APIRouter(tags=["jobs"])


@router.get(
    _PATH,
    response_class=Response,
    summary="Read a job's recording",
    responses=audio_answers(problems.JOB_NOT_FOUND, problems.AUDIO_NOT_FOUND),
)
async def job_audio(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    job_id: JobId,
    range: Range = None,  # noqa: A002 - the header's name
    if_range: IfRange = None,
) -> Response:
    """Return the audio as it was sent, or a range of it; HEAD says how large it is."""
    audio, name = await _found(parts, caller, job_id)
    reader = Reader(parts.readers, client_of(request, caller), problems.AUDIO_NOT_FOUND)
    return await audio_response(parts.bucket, reader, audio, asked=range, if_range=if_range, name=name)


@router.head(_PATH, include_in_schema=False)
async def job_audio_head(parts: Parts, caller: CallerIs, job_id: JobId) -> Response:
    """Return the headers of the whole."""
    audio, name = await _found(parts, caller, job_id)
    return audio_head(audio, name=name)


async def _found(parts: JobParts, caller: Caller, job_id: str) -> tuple[StoredAudio, str]:
    """Return a job's recording, and what its user called it."""
    job_id = canonical(job_id)
    await parts.availability.require("S3", "MongoDB")
    job = await parts.visible.find(caller, job_id, "hear")
    audio = await parts.bucket.find_audio(job_id)
    if audio is None:
        raise ProblemError(problems.AUDIO_NOT_FOUND)
    return audio, job.filename or "recording"
