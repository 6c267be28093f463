"""The routes that the analysis server calls."""

import json
from typing import Any

from fastapi import APIRouter, Request

from contracts import api, events, problems, webhook
from contracts.api import WebhookReceipt
from gateway.availability import Availability
from gateway.errors import ProblemError
from gateway.rabbitmq import RabbitMQ
from gateway.routes.addresses import canonical
from gateway.settings import Settings
from gateway.store import Jobs
from gateway.submissions import too_large_to_keep, webhook_event

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


def webhook_routes(settings: Settings, jobs: Jobs, rabbitmq: RabbitMQ, back_ends: Availability) -> APIRouter:
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
        job_id = canonical(job_id)
        await back_ends.require("RabbitMQ", "MongoDB")
        traceparent = await jobs.traceparent(job_id)
        if traceparent is None:
            raise ProblemError(problems.JOB_NOT_FOUND, close=True)
        body = await _webhook_body(request, settings.max_result_bytes)
        await rabbitmq.publish(webhook_event(job_id, int(attempt), body, traceparent))
        back_ends.seen("RabbitMQ", "MongoDB")
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
