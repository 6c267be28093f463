"""The HTTP edge: POST /analyze-voice, what a request must hold, and every refusal as a problem (RFC 9457)."""

import re
import uuid
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Form, Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analysis_server.errors import ProblemError
from analysis_server.job import Job, Part, Script
from analysis_server.jobs import JobsInHand
from contracts.addresses import AddressError, Addresses, OtherBucketError

MAX_BODY_BYTES = 1024 * 1024
MAX_SCRIPTS, MAX_SCRIPT_CHARACTERS = 100, 500
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_Address = Annotated[str, Field(max_length=4096)]


class AnalyzeForm(BaseModel):
    """The request's form."""

    s3_audio_url: _Address = Field(description="s3://bucket/key, in the bucket that this server is set up for")
    webhook_url: _Address = Field(description="http(s) address that is called, as it is, with the outcome")
    video_id: str = Field(max_length=1024, description="Sent back with the result")
    s3_reference_url: _Address | None = Field(None, description="The actor's speech, to compare the recording with")
    s3_textgrid_url: _Address | None = Field(None, description="The actor's words and phones, a Praat TextGrid")
    s3_pitch_url: _Address | None = Field(
        None, description='The actor\'s pitch, [{"time": s, "hz": number or null}, …]'
    )
    scripts: str | None = Field(
        None,
        description="The English sentences spoken, JSON: "
        '[{"script_id": 1, "start_seconds": 0.5, "end_seconds": 2.5, "script": "text"}, …]',
    )


class ScriptField(BaseModel):
    """A script in the form's field; what else it may have is passed over."""

    model_config = ConfigDict(strict=True, str_strip_whitespace=True)

    script_id: int = Field(ge=1)
    start_seconds: float = Field(allow_inf_nan=False)
    end_seconds: float = Field(allow_inf_nan=False)
    script: str = Field(min_length=1, max_length=MAX_SCRIPT_CHARACTERS)


_SCRIPTS = TypeAdapter(Annotated[list[ScriptField], Field(max_length=MAX_SCRIPTS)])


class Accepted(BaseModel):
    """The answer: the work has begun, and its outcome goes to the webhook."""

    job_id: str = Field(description="This server's own id")
    status: Literal["processing"] = "processing"


def analysis_routes(jobs: JobsInHand, addresses: Addresses) -> APIRouter:
    """Return the one route that takes work."""
    router = APIRouter(tags=["analysis"])

    @router.post("/analyze-voice", summary="Analyse a recording and call back with the result")
    async def analyze_voice(
        form: Annotated[AnalyzeForm, Form()], traceparent: Annotated[str | None, Header()] = None
    ) -> Accepted:
        return Accepted(job_id=await jobs.accept(_job(form, addresses, traceparent)))

    return router


def _job(form: AnalyzeForm, addresses: Addresses, traceparent: str | None) -> Job:
    if not _is_web_address(form.webhook_url):
        raise _invalid("webhook_url_invalid", "webhook_url must be an http:// or https:// address.")
    try:
        key = addresses.key_of(form.s3_audio_url)
    except AddressError:
        raise _invalid("audio_url_invalid", "s3_audio_url must look like s3://bucket/key.") from None
    except OtherBucketError:
        raise _invalid("audio_not_in_bucket", "s3_audio_url names a bucket that this server does not serve.") from None
    return Job(
        job_id=str(uuid.uuid4()),
        s3_audio_url=form.s3_audio_url,
        key=key,
        webhook_url=form.webhook_url,
        video_id=form.video_id,
        scripts=_scripts(form.scripts) if form.scripts else (),
        reference=_reference(form),
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
    )


def _scripts(text: str) -> tuple[Script, ...]:
    """Return the scripts in the order in which they are spoken."""
    try:
        given = _SCRIPTS.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        raise _invalid("scripts_invalid", f"scripts{where}: {first['msg']}.") from None
    if any(script.start_seconds >= script.end_seconds for script in given):
        raise _invalid("scripts_invalid", "scripts: start_seconds must be before end_seconds.")
    if len({script.script_id for script in given}) < len(given):
        raise _invalid("scripts_invalid", "scripts: each script_id must be there once.")
    return tuple(Script(**script.model_dump()) for script in sorted(given, key=lambda script: script.start_seconds))


def _reference(form: AnalyzeForm) -> dict[Part, str]:
    """Return the addresses that were given. Whether they can be used is checked later, and never fails the job."""
    parts: dict[Part, str | None] = {
        "reference": form.s3_reference_url,
        "textgrid": form.s3_textgrid_url,
        "pitch": form.s3_pitch_url,
    }
    return {part: address for part, address in parts.items() if address}


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False


def _invalid(code: str, detail: str) -> ProblemError:
    return ProblemError(422, code, "Invalid request", detail)


def answer_with_problems(app: FastAPI) -> None:
    """Make every refusal and every error of `app` an application/problem+json answer with a stable code."""

    @app.exception_handler(ProblemError)
    async def refused(_request: Request, error: ProblemError) -> JSONResponse:
        return _problem(error)

    @app.exception_handler(RequestValidationError)
    async def misformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = str(first["loc"][-1])
        code = {"missing": "field_missing", "string_too_long": "field_too_long"}.get(first["type"], "request_invalid")
        return _problem(_invalid(code, f"{field}: {first['msg']}."))

    @app.exception_handler(HTTPException)
    async def unknown(_request: Request, error: HTTPException) -> JSONResponse:
        code, detail = _HTTP_PROBLEMS.get(error.status_code, ("request_invalid", "The request could not be read."))
        return _problem(ProblemError(error.status_code, code, error.detail, detail))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, _error: Exception) -> JSONResponse:
        # The server's own error log gets the exception: Starlette raises it again after this answer.
        return _problem(ProblemError(500, "internal_error", "Internal error", "The problem has been logged."))


_HTTP_PROBLEMS = {
    404: ("not_found", "There is nothing at this address; see /docs."),
    405: ("method_not_allowed", "This address does not take that method; see /docs."),
    413: ("body_too_large", f"A request's body may have {MAX_BODY_BYTES} bytes at most."),
}


def _problem(error: ProblemError) -> JSONResponse:
    body = {
        "type": f"/problems/{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else None
    return JSONResponse(body, error.status, headers, "application/problem+json")


class BodyLimit:
    """ASGI middleware: a body over MAX_BODY_BYTES is refused with 413 before it is all in memory.

    FastAPI's own `max_body_size` answers a declared length over the limit in plain text, not as a problem.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the bytes of its body as they come."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        count = 0

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count > MAX_BODY_BYTES:
                raise HTTPException(413, "Content Too Large")
            return message

        await self._app(scope, counted, send)
