"""The route that takes recordings in."""

from dataclasses import dataclass
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Path, Query, Request, Response

from contracts import api, events, problems
from contracts.api import UploadAccepted
from contracts.metadata import MAX_BYTES
from contracts.names import is_plain
from gateway.audio import ArrivingFile
from gateway.availability import Availability
from gateway.jobs.links import job_links
from gateway.jobs.visible import VisibleJobs
from gateway.storage import Bucket
from gateway.uploads.idempotency import (
    Accepted,
    Idempotency,
    InvalidKeyError,
    JobGoneError,
    KeyInUseError,
    KeyReusedError,
    parsed_key,
)
from gateway.uploads.publishing import Publishing
from gateway.uploads.submissions import Dubbed, Submissions
from gateway.web.bodies import arriving_file, file_body
from gateway.web.callers import CallerIs
from gateway.web.client import client_of
from gateway.web.parameters import Traceparent
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.quotas import JOBS_WAITING, UPLOAD_BYTES, UPLOADS, ClientQuotas
from gateway.web.slots import Slots

log = structlog.get_logger()

TOKEN_ID_CHARACTERS = 200
IN_USE_RETRY_SECONDS = 2
"""When a request whose key is in use may come again: the other has ended by then, or the next answer says so again."""

TokenId = Annotated[str, Path(description="The token that was dubbed; any text without a slash")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description=(
            "One key for one upload and its repeats (draft-ietf-httpapi-idempotency-key-header), kept for 24 hours: "
            "the same recording and metadata for the same token get the first answer again, and no second job"
        ),
        examples=['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    ),
]


METADATA = (
    f"What the job is to be known by: a JSON object of up to {MAX_BYTES} bytes, which every state of the job and "
    "every event with a token id has, and "
    "by which `GET /jobs?metadata.<key>=<value>` finds it"
)
Metadata = Annotated[
    str | None, Query(description=f"{METADATA}; in place of the form's field", examples=['{"user": 7}'])
]


@dataclass(frozen=True)
class UploadParts:
    """What the routes that make jobs work with."""

    submissions: Submissions
    idempotency: Idempotency
    publishing: Publishing
    visible: VisibleJobs
    bucket: Bucket
    availability: Availability
    uploads: Slots
    quotas: ClientQuotas
    max_bytes: int


Parts = Annotated[UploadParts, given(UploadParts)]
router = APIRouter(tags=["jobs"])


@router.post(
    "/tokens/{token_id}/upload-audio",
    status_code=202,
    summary="Upload a recording",
    responses=api.problem_answers(
        problems.FORM_MALFORMED,
        problems.IDEMPOTENCY_KEY_INVALID,
        problems.UPLOAD_TOO_SLOW,
        problems.IDEMPOTENCY_KEY_IN_USE,
        problems.UPLOAD_TOO_LARGE,
        problems.ENCODING_UNSUPPORTED,
        problems.FILE_MISSING,
        problems.TOO_MANY_FILES,
        problems.FILE_EMPTY,
        problems.METADATA_INVALID,
        problems.TOKEN_ID_INVALID,
        problems.IDEMPOTENCY_KEY_JOB_GONE,
        problems.IDEMPOTENCY_KEY_REUSED,
        problems.TOO_MANY_REQUESTS,
        problems.TOO_MANY_UPLOADS,
        problems.TOO_MANY_BYTES,
        problems.TOO_MANY_JOBS,
        problems.TOO_MANY_AT_ONCE,
        problems.BUSY,
        problems.UNAVAILABLE,
    ),
    openapi_extra=file_body("The recording", {"metadata": {"type": "string", "description": METADATA}}),
)
async def upload_audio(
    *,
    parts: Parts,
    caller: CallerIs,
    request: Request,
    response: Response,
    token_id: TokenId,
    metadata: Metadata = None,  # noqa: ARG001 - for the document; arriving_file reads it with its repeats
    idempotency_key: IdempotencyKey = None,  # noqa: ARG001 - for the document; _key reads it with its repeats
    traceparent: Traceparent = None,
) -> UploadAccepted:
    """Take the recording in while it arrives; answered once it is safe, before it is analysed."""
    _check_token_id(token_id)
    key = _key(request)
    parts.quotas.check(request, JOBS_WAITING, UPLOAD_BYTES)
    with parts.quotas.held(request, UPLOADS), parts.uploads.taken(client_of(request, caller), close=True):
        file = parts.quotas.counted(request, arriving_file(request, parts.max_bytes, reads_metadata=True))
        await parts.availability.require("S3", "MongoDB")
        dubbed = Dubbed(token_id, caller.owner, events.continued_trace(traceparent))
        accepted = await _accepted(parts, key, dubbed, file)
    if accepted.event is None:
        log.info("upload repeated", job_id=accepted.job_id)
    else:
        parts.quotas.add(request, JOBS_WAITING, 1)
        parts.availability.seen("S3", "MongoDB")
        parts.publishing.publish_soon(accepted.event)
        size, trace_id = accepted.event.data.size_bytes, accepted.event.trace_id
        log.info("upload accepted", job_id=accepted.job_id, trace_id=trace_id, size_bytes=size)
    links = job_links(accepted.job_id)
    response.headers["Location"] = links["result_url"]
    return UploadAccepted(job_id=accepted.job_id, **links)


async def _accepted(parts: UploadParts, key: str | None, dubbed: Dubbed, file: ArrivingFile) -> Accepted:
    if key is None:
        event = await parts.submissions.accept(dubbed, file)
        return Accepted(event.subject, event)
    try:
        return await parts.idempotency.accept(key, dubbed, file)
    except KeyInUseError:
        headers = {"Retry-After": str(IN_USE_RETRY_SECONDS)}
        raise ProblemError(problems.IDEMPOTENCY_KEY_IN_USE, close=True, headers=headers) from None
    except JobGoneError:
        raise ProblemError(problems.IDEMPOTENCY_KEY_JOB_GONE, close=True) from None
    except KeyReusedError:
        raise ProblemError(problems.IDEMPOTENCY_KEY_REUSED, close=True) from None


def _key(request: Request) -> str | None:
    try:
        return parsed_key(request.headers.getlist("idempotency-key"))
    except InvalidKeyError:
        raise ProblemError(problems.IDEMPOTENCY_KEY_INVALID, close=True) from None


def _check_token_id(token_id: str) -> None:
    if not is_plain(token_id) or not token_id.strip() or len(token_id) > TOKEN_ID_CHARACTERS:
        raise ProblemError(problems.TOKEN_ID_INVALID, close=True)
