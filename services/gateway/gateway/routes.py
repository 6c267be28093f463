"""The public HTTP surface, but for the streams, which are the notifier's."""

import json
import unicodedata
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Header, Path, Request, Response

from contracts import api, events, problems, webhook
from contracts.api import JobState, UploadAccepted, WebhookReceipt
from contracts.failures import preferred_language
from contracts.job import progressed
from gateway.errors import ProblemError
from gateway.forms import FRAMING_BYTES, FileForm
from gateway.outbox import Outbox
from gateway.rabbitmq import RabbitMQ
from gateway.settings import Settings
from gateway.store import Jobs
from gateway.submissions import Submissions, too_large_to_keep, webhook_event

log = structlog.get_logger()

MAX_UPLOADS = 100
"""Uploads that this process takes in at once; each may hold one part of 5 MiB in memory."""
TOKEN_ID_CHARACTERS = 200

TokenId = Annotated[str, Path(description="The token that was dubbed; any text without a slash")]
JobId = Annotated[str, Path(description="As the upload was answered", json_schema_extra={"format": "uuid"})]
AcceptLanguage = Annotated[str | None, Header(description="`ko` or `en`, for the sentences of errors")]
Traceparent = Annotated[str | None, Header(description="W3C Trace Context, to find the job in logs and events")]

_FILE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary", "description": "The recording"}},
                }
            }
        },
    }
}
_WEBHOOK_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "examples": {
                    "success": {"value": {"status": "success", "result": {"score": 87.5}}},
                    "completed": {"value": {"job_id": "17", "status": "completed", "result": {"score": 87.5}}},
                    "analysis_results": {
                        "value": {
                            "job_id": "17",
                            "status": "completed",
                            "video_id": "test-token",
                            "s3_audio_url": "s3://bucket/audio/key.wav",
                            "analysis_results": {"score": 87.5},
                        }
                    },
                    "failed": {"value": {"job_id": "17", "status": "failed", "error": "no speech found"}},
                },
            }
        },
    }
}


def upload_routes(settings: Settings, submissions: Submissions, outbox: Outbox) -> APIRouter:
    """Return the route that takes recordings in."""
    router = APIRouter(tags=["jobs"])
    uploads = 0

    @router.post(
        "/tokens/{token_id}/upload-audio",
        status_code=202,
        summary="Upload a recording",
        responses=api.problem_answers(
            problems.FORM_MALFORMED,
            problems.UPLOAD_TOO_SLOW,
            problems.UPLOAD_TOO_LARGE,
            problems.FILE_MISSING,
            problems.TOO_MANY_FILES,
            problems.FILE_EMPTY,
            problems.TOKEN_ID_INVALID,
            problems.BUSY,
            problems.UNAVAILABLE,
        ),
        openapi_extra=_FILE_BODY,
    )
    async def upload_audio(
        request: Request, response: Response, token_id: TokenId, traceparent: Traceparent = None
    ) -> UploadAccepted:
        """Take the recording in while it arrives; answered once it is safe, before it is analysed."""
        nonlocal uploads
        _check_token_id(token_id)
        _check_length(request, settings.max_upload_bytes)
        if uploads >= MAX_UPLOADS:
            raise ProblemError(problems.BUSY, close=True)
        content_type = request.headers.get("content-type", "")
        form = FileForm(content_type, request.stream(), settings.max_upload_bytes)
        uploads += 1
        try:
            event = await submissions.accept(token_id, form, events.continued_trace(traceparent))
        finally:
            uploads -= 1
        outbox.publish_soon(event)
        log.info("upload accepted", job_id=event.subject, trace_id=event.trace_id, size_bytes=event.data.size_bytes)
        result_url = api.RESULT_PATH.format(job_id=event.subject)
        response.headers["Location"] = result_url
        progress_url = api.PROGRESS_PATH.format(job_id=event.subject)
        return UploadAccepted(job_id=event.subject, result_url=result_url, progress_url=progress_url)

    return router


def result_routes(jobs: Jobs) -> APIRouter:
    """Return the route that gives results out."""
    router = APIRouter(tags=["jobs"])

    @router.get(
        "/tokens/analysis-result/{job_id}",
        response_model=JobState,
        summary="Read a job's state and result",
        responses=api.problem_answers(problems.JOB_NOT_FOUND, problems.UNAVAILABLE),
    )
    async def analysis_result(job_id: JobId, accept_language: AcceptLanguage = None) -> Response:
        """Return the job as it stands; `result` is there once `status` is `completed`."""
        job = await jobs.find(_canonical(job_id))
        if job is None:
            raise ProblemError(problems.JOB_NOT_FOUND)
        language = preferred_language(accept_language)
        state = api.state_json(job.job_id, progressed(job, job.revision, job.view), language)
        return Response(state, media_type="application/json", headers={"Cache-Control": "no-store"})

    return router


def webhook_routes(settings: Settings, jobs: Jobs, rabbitmq: RabbitMQ) -> APIRouter:
    """Return the routes that the analysis server calls."""
    router = APIRouter(tags=["webhook"])
    secret = settings.webhook_secret.get_secret_value()

    async def analysis_complete(
        request: Request, job_id: str = "", attempt: str = "1", signature: str = ""
    ) -> WebhookReceipt:
        """Take the analysis server's answer; it is safe when this is answered, and repeats are harmless.

        The result is kept as it came, but for numbers that JSON or a double cannot hold (NaN, 1e999): those
        are null. A body may be nested 100 levels deep.
        """
        if not webhook.signature_is_valid(secret, job_id, attempt, signature):
            raise ProblemError(problems.SIGNATURE_INVALID, close=True)
        job_id = _canonical(job_id)
        traceparent = await jobs.traceparent(job_id)
        if traceparent is None:
            raise ProblemError(problems.JOB_NOT_FOUND, close=True)
        body = await _webhook_body(request, settings.max_result_bytes)
        await rabbitmq.publish(webhook_event(job_id, int(attempt), body, traceparent))
        if body is None:
            raise ProblemError(problems.RESULT_TOO_LARGE, close=True)
        return WebhookReceipt(job_id=job_id)

    answers = api.problem_answers(
        problems.WEBHOOK_NOT_JSON,
        problems.SIGNATURE_INVALID,
        problems.JOB_NOT_FOUND,
        problems.RESULT_TOO_LARGE,
        problems.UNAVAILABLE,
    )
    for path in ("/tokens/webhook/analysis-complete", "/webhook/analysis-complete"):
        router.add_api_route(
            path,
            analysis_complete,
            methods=["POST"],
            summary="Take the analysis server's answer",
            responses=answers,
            openapi_extra=_WEBHOOK_BODY,
            operation_id=path.strip("/").replace("/", "_").replace("-", "_"),
        )
    return router


def _canonical(job_id: str) -> str:
    """Return the id as jobs are kept under; ProblemError when no job can have it."""
    try:
        canonical = str(UUID(job_id))
    except ValueError:
        raise ProblemError(problems.JOB_NOT_FOUND) from None
    if canonical != job_id.lower():
        raise ProblemError(problems.JOB_NOT_FOUND)
    return canonical


def _check_token_id(token_id: str) -> None:
    printable = all(unicodedata.category(c) not in {"Cc", "Cs"} for c in token_id)
    if not printable or not token_id.strip() or len(token_id) > TOKEN_ID_CHARACTERS:
        raise ProblemError(problems.TOKEN_ID_INVALID, close=True)


def _check_length(request: Request, max_bytes: int) -> None:
    """Refuse by Content-Length what is too large whatever the form's framing takes."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes + FRAMING_BYTES:
        raise ProblemError(problems.UPLOAD_TOO_LARGE, close=True)


async def _webhook_body(request: Request, max_result_bytes: int) -> events.JsonObject | None:
    """Return the call's JSON object, or None when its result is too large, or too deep, to keep."""
    limit = max_result_bytes + webhook.ENVELOPE_BYTES
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit:
            return None
    try:
        body = events.from_json(content.decode())
    except ValueError:
        if _is_json(content):
            return None
        raise ProblemError(problems.WEBHOOK_NOT_JSON, close=True) from None
    return None if too_large_to_keep(body, max_result_bytes) else body


def _is_json(content: bytearray) -> bool:
    """Tell whether content that could not be read is a JSON object all the same, only nested too deeply."""
    try:
        return isinstance(json.loads(content), dict)
    except RecursionError:
        return True
    except ValueError:
        return False
