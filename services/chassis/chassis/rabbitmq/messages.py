"""Makes the messages to publish: each is persistent, and has a timestamp and a content type."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aio_pika import DeliveryMode, Message

from contracts import topology
from contracts.events import CONTENT_TYPE, Event


def event_message(event: Event, *, redriven: bool = False) -> Message:
    """Return the message that carries an event; `redriven` marks a repeat, which subscribers try once."""
    headers = {topology.REDRIVE_HEADER: 1} if redriven else None
    return message(event.encode(), message_id=event.id, headers=headers)


def message(
    body: bytes,
    *,
    message_id: str | None,
    content_type: str | None = None,
    headers: Mapping[str, Any] | None = None,
) -> Message:
    """Return a persistent message with this body; its content type is that of an event by default."""
    return Message(
        body,
        delivery_mode=DeliveryMode.PERSISTENT,
        timestamp=datetime.now(UTC),
        message_id=message_id,
        content_type=content_type or CONTENT_TYPE,
        headers=dict(headers or {}),
    )
