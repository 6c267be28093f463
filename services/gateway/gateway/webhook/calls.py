"""What a call of the webhook says, and the event that it becomes."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from contracts import events, webhook
from contracts.events import AnalysisWebhookReceived, AnalysisWebhookReceivedData, Event, JsonObject
from gateway import SERVICE
from gateway.webhook.bodies import GZIP_MAGIC, parsed, read_body

LONGEST_ESCAPE = 6
r"""Bytes that JSON may take for one: \u0061. So a body may be larger than what is kept of it."""
INLINE_BYTES = 64 * 1024
"""A larger body is read in a thread: meanwhile, other requests go on."""


class BodyTooLargeError(ValueError):
    """The body is larger than what is read, and what its beginning says does not end the analysis."""


@dataclass(frozen=True)
class Call:
    """What is kept of a call: its body, None when its result is known to be too large."""

    body: JsonObject | None
    interim: bool = False
    """Whether the analysis goes on."""


async def read_call(chunks: AsyncIterator[bytes], encoding: str, max_result_bytes: int) -> Call:
    """Read a call of the webhook; UnsupportedEncodingError, UnreadableError, BodyTooLargeError."""
    bound = LONGEST_ESCAPE * max_result_bytes + webhook.ENVELOPE_BYTES
    content, packing = await read_body(chunks, encoding, bound)
    # A small packed body may be a large one.
    if packing or len(content) > INLINE_BYTES or content.startswith(GZIP_MAGIC):
        return await asyncio.to_thread(_call, content, packing, bound, max_result_bytes)
    return _call(content, packing, bound, max_result_bytes)


def _call(content: bytes, packing: str, bound: int, max_result_bytes: int) -> Call:
    body = parsed(content, packing, bound)
    call = call_of(body.content, max_result_bytes)
    if call.body is not None and not body.whole:
        raise BodyTooLargeError
    return call


def call_of(body: JsonObject, max_result_bytes: int) -> Call:
    """Return what is kept of a body; of one that is large beside its result, the shortest that says the same."""
    said = webhook.outcome(body)
    interim = isinstance(said, webhook.Interim)
    if _size(body) <= max_result_bytes:
        return Call(body, interim)
    if isinstance(said, webhook.Success) and _size(said.result) > max_result_bytes:
        return Call(None)
    is_large = _size(body) > max_result_bytes + webhook.ENVELOPE_BYTES
    return Call(webhook.essence(said) if is_large else body, interim)


def webhook_event(job_id: str, attempt: int, body: JsonObject | None, traceparent: str) -> Event:
    """Return the event of a call whose signature is valid; the same call again gives the same event id."""
    text = "too large" if body is None else events.to_json(body)
    step = f"{attempt}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    data = AnalysisWebhookReceivedData(attempt=attempt, body=body)
    return AnalysisWebhookReceived.new(job_id, data, source=SERVICE, traceparent=traceparent, step=step)


def _size(value: JsonObject) -> int:
    return len(events.to_json(value).encode())
