"""What a call of the webhook says: its body, and the event that it becomes."""

import hashlib
import json
from collections.abc import AsyncIterator

from pydantic import JsonValue

from contracts import events, webhook
from contracts.events import AnalysisWebhookReceived, AnalysisWebhookReceivedData, Event, JsonObject
from gateway import SERVICE

MAX_DEPTH = 100
"""How deeply a body may be nested: an event adds levels of its own, and JSON parsers give up at about 200."""


class NotJsonError(ValueError):
    """The body is not a JSON object."""


async def read_body(chunks: AsyncIterator[bytes], max_result_bytes: int) -> JsonObject | None:
    """Return the call's JSON object, None when its result is too large or too deep to keep; NotJsonError."""
    limit = max_result_bytes + webhook.ENVELOPE_BYTES
    content = bytearray()
    async for chunk in chunks:
        content += chunk
        if len(content) > limit:
            return None
    try:
        body = events.from_json(content.decode())
    except ValueError:
        if _is_json(content):
            return None
        raise NotJsonError from None
    return None if too_large_to_keep(body, max_result_bytes) else body


def webhook_event(job_id: str, attempt: int, body: JsonObject | None, traceparent: str) -> Event:
    """Return the event of a call whose signature is valid; the same call again gives the same event id."""
    text = "too large" if body is None else events.to_json(body)
    step = f"{attempt}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    data = AnalysisWebhookReceivedData(attempt=attempt, body=body)
    return AnalysisWebhookReceived.new(job_id, data, source=SERVICE, traceparent=traceparent, step=step)


def too_large_to_keep(body: JsonObject, max_result_bytes: int) -> bool:
    """Tell whether a body is nested too deeply, or its result, as compact JSON, has more bytes than may be kept."""
    if _depth(body) > MAX_DEPTH:
        return True
    if len(events.to_json(body).encode()) <= max_result_bytes:
        return False
    outcome = webhook.outcome(body)
    return isinstance(outcome, webhook.Success) and len(events.to_json(outcome.result).encode()) > max_result_bytes


def _depth(value: JsonValue) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _is_json(content: bytearray) -> bool:
    """Tell whether content that could not be parsed is a JSON object nevertheless, which is nested too deeply."""
    try:
        return isinstance(json.loads(content), dict)
    except RecursionError:
        return True
    except ValueError:
        return False
