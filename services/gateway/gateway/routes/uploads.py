"""The route that takes recordings in."""

import unicodedata
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Header, Path, Request, Response

from contracts import api, events, problems
from contracts.api import UploadAccepted
from gateway.availability import Availability
from gateway.errors import ProblemError
from gateway.forms import FRAMING_BYTES, FileForm
from gateway.idempotency import (
    Accepted,
    Idempotency,
    InvalidKeyError,
    JobGoneError,
    KeyInUseError,
    KeyReusedError,
    parsed_key,
)
from gateway.outbox import Outbox
from gateway.routes.addresses import Traceparent
from gateway.routes.places import Places
from gateway.settings import Settings
from gateway.submissions import Submissions

log = structlog.get_logger()

TOKEN_ID_CHARACTERS = 200
IN_USE_RETRY_SECONDS = 2
"""When a request whose key is in use may come again: the first will have ended, or the lease is asked about anew."""

TokenId = Annotated[str, Path(description="The token that was dubbed; any text without a slash")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description=(
            "One key for one upload and its repeats (draft-ietf-httpapi-idempotency-key-header), kept for 24 hours: "
            "the same recording for the same token gets the first answer again, and no second job"
        ),
        examples=['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
    ),
]


def upload_routes(
    settings: Settings,
    submissions: Submissions,
    idempotency: Idempotency,
    outbox: Outbox,
    *,
    back_ends: Availability,
    places: Places,
) -> APIRouter:
    """Return the route that takes recordings in."""
    router = APIRouter(tags=["jobs"])

    async def accepted(key: str | None, token_id: str, form: FileForm, traceparent: str) -> Accepted:
        if key is None:
            event = await submissions.accept(token_id, form, traceparent)
            return Accepted(event.subject, event)
        try:
            return await idempotency.accept(key, token_id, form, traceparent)
        except KeyInUseError:
            headers = {"Retry-After": str(IN_USE_RETRY_SECONDS)}
            raise ProblemError(problems.IDEMPOTENCY_KEY_IN_USE, close=True, headers=headers) from None
        except JobGoneError:
            raise ProblemError(problems.IDEMPOTENCY_KEY_JOB_GONE, close=True) from None
        except KeyReusedError:
            raise ProblemError(problems.IDEMPOTENCY_KEY_REUSED, close=True) from None

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
            problems.FILE_MISSING,
            problems.TOO_MANY_FILES,
            problems.FILE_EMPTY,
            problems.TOKEN_ID_INVALID,
            problems.IDEMPOTENCY_KEY_JOB_GONE,
            problems.IDEMPOTENCY_KEY_REUSED,
            problems.BUSY,
            problems.UNAVAILABLE,
        ),
        openapi_extra=file_body("The recording"),
    )
    async def upload_audio(
        request: Request,
        response: Response,
        token_id: TokenId,
        idempotency_key: IdempotencyKey = None,  # noqa: ARG001 - for the document; read below, repeats of it included
        traceparent: Traceparent = None,
    ) -> UploadAccepted:
        """Take the recording in while it arrives; answered once it is safe, before it is analysed."""
        _check_token_id(token_id)
        key = _key(request)
        with places.taken(close=True):
            form = file_form(request, settings.max_upload_bytes)
            await back_ends.require("S3", "MongoDB")
            done = await accepted(key, token_id, form, events.continued_trace(traceparent))
        if done.event is None:
            log.info("upload repeated", job_id=done.job_id)
        else:
            back_ends.seen("S3", "MongoDB")
            outbox.publish_soon(done.event)
            size, trace_id = done.event.data.size_bytes, done.event.trace_id
            log.info("upload accepted", job_id=done.job_id, trace_id=trace_id, size_bytes=size)
        links = job_links(done.job_id)
        response.headers["Location"] = links["result_url"]
        return UploadAccepted(job_id=done.job_id, **links)

    return router


def file_body(description: str) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that `file_form` reads."""
    file = {"type": "string", "format": "binary", "description": description}
    form = {"type": "object", "required": ["file"], "properties": {"file": file}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def file_form(request: Request, max_bytes: int) -> FileForm:
    """Return the form that a request sends; ProblemError by its headers alone when it cannot be taken in."""
    length = request.headers.get("content-length", "")
    # Too large whatever the form's framing takes.
    if length.isdecimal() and int(length) > max_bytes + FRAMING_BYTES:
        raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)
    return FileForm(request.headers.get("content-type", ""), request.stream(), max_bytes)


def job_links(job_id: str) -> dict[str, str]:
    """Return where a new job is read and watched."""
    return {
        "result_url": api.RESULT_PATH.format(job_id=job_id),
        "progress_url": api.PROGRESS_PATH.format(job_id=job_id),
    }


def _key(request: Request) -> str | None:
    try:
        return parsed_key(request.headers.getlist("idempotency-key"))
    except InvalidKeyError:
        raise ProblemError(problems.IDEMPOTENCY_KEY_INVALID, close=True) from None


def _check_token_id(token_id: str) -> None:
    printable = all(unicodedata.category(c) not in {"Cc", "Cs"} for c in token_id)
    if not printable or not token_id.strip() or len(token_id) > TOKEN_ID_CHARACTERS:
        raise ProblemError(problems.TOKEN_ID_INVALID, close=True)
