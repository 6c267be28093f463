"""The routes that the analysis server calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Request, Response

from chassis.errors import AwayError, reason_of
from contracts import api, events, problems, webhook
from contracts.api import WebhookReceipt
from contracts.json_text import UnreadableError
from gateway.availability import Availability
from gateway.jobs.documents import Jobs
from gateway.web.parameters import canonical
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.webhook.bodies import UnsupportedEncodingError
from gateway.webhook.calls import BodyTooLargeError, Call, read_call, webhook_event
from gateway.webhook.kept import Webhooks

log = structlog.get_logger()

PATHS = ("/tokens/webhook/analysis-complete", "/webhook/analysis-complete")
SIGNATURE_PATH = "/webhook/signature"
_BODY: dict[str, Any] = {
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
                    "interim": {"value": {"job_id": "17", "status": "processing", "progress": 40}},
                },
            }
        },
    }
}


@dataclass(frozen=True)
class WebhookParts:
    """What these routes work with."""

    jobs: Jobs
    webhooks: Webhooks
    availability: Availability
    secrets: Sequence[str]
    max_result_bytes: int


Parts = Annotated[WebhookParts, given(WebhookParts)]
router = APIRouter(tags=["webhook"])


async def analysis_complete(
    parts: Parts, request: Request, job_id: str = "", attempt: str = "1", signature: str = ""
) -> WebhookReceipt:
    """Take the analysis server's answer; it is safe when this is answered, and repeats are harmless.

    A status is read as any of the usual words for it. An unknown one with a result is a success; without one, the
    analysis goes on, and its `progress` (0 to 100) is shown. The result may be JSON text. The body is UTF-8, plain or
    with `Content-Encoding` gzip or deflate, and nested 100 levels deep at most. The result is kept as it came, but for
    numbers that JSON or a double cannot hold (NaN, 1e999), which are null, and lone surrogates, which are U+FFFD. A
    body that cannot be read ends nothing.
    """
    _require_signed(parts, job_id, attempt, signature)
    job_id = canonical(job_id)
    traceparent = await _traceparent(parts, job_id)
    if traceparent is None:
        raise ProblemError(problems.JOB_NOT_FOUND, close=True)
    call = await _call(request, parts.max_result_bytes)
    await parts.webhooks.take(webhook_event(job_id, int(attempt), call.body, traceparent), interim=call.interim)
    if call.body is None:
        raise ProblemError(problems.RESULT_TOO_LARGE, close=True)
    return WebhookReceipt(job_id=job_id)


@router.get(SIGNATURE_PATH, include_in_schema=False)
async def signature_check(parts: Parts, job_id: str = "", attempt: str = "1", signature: str = "") -> Response:
    """Tell the edge whether it may take in the body of a call whose address has this query: 204 when it is signed."""
    _require_signed(parts, job_id, attempt, signature)
    return Response(status_code=204)


for _path in PATHS:
    router.add_api_route(
        _path,
        analysis_complete,
        methods=["POST"],
        summary="Take the analysis server's answer",
        responses=api.problem_answers(
            problems.WEBHOOK_NOT_JSON,
            problems.SIGNATURE_INVALID,
            problems.JOB_NOT_FOUND,
            problems.RESULT_TOO_LARGE,
            problems.BODY_TOO_LARGE,
            problems.ENCODING_UNSUPPORTED,
            problems.UNAVAILABLE,
        ),
        openapi_extra=_BODY,
        operation_id=_path.strip("/").replace("/", "_").replace("-", "_"),
    )


async def _traceparent(parts: WebhookParts, job_id: str) -> str | None:
    """Return the trace of the job, None when there is no such job.

    While MongoDB is away, or too slow to say, it is a new one: the signature tells that there is, or was, such a job,
    and a call that comes once is not to be lost when RabbitMQ can take it.
    """
    try:
        await parts.availability.require("MongoDB")
        traceparent = await parts.jobs.traceparent(job_id)
    except AwayError as error:
        log.warning("webhook without its trace", job_id=job_id, reason=reason_of(error))
        return events.continued_trace(None)
    parts.availability.seen("MongoDB")
    return traceparent


def _require_signed(parts: WebhookParts, job_id: str, attempt: str, signature: str) -> None:
    if not webhook.signature_is_valid(parts.secrets, job_id, attempt, signature):
        raise ProblemError(problems.SIGNATURE_INVALID, close=True)


async def _call(request: Request, max_result_bytes: int) -> Call:
    encoding = ",".join(request.headers.getlist("content-encoding"))
    try:
        return await read_call(request.stream(), encoding, max_result_bytes)
    except UnsupportedEncodingError:
        accepted = {"Accept-Encoding": "gzip, deflate"}
        raise ProblemError(problems.ENCODING_UNSUPPORTED, close=True, headers=accepted) from None
    except UnreadableError as error:
        log.warning("webhook unreadable", path=request.url.path, fault=error.fault)
        raise ProblemError(problems.WEBHOOK_FAULTS[error.fault], close=True) from None
    except BodyTooLargeError:
        raise ProblemError(problems.BODY_TOO_LARGE, close=True) from None
