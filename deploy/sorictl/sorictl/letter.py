"""What is known of one dead letter: which job it holds, who set it aside, when and why, and how it goes back."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from contracts import events, topology
from contracts.events import JobHeld, JobResumed, JobResumedData
from sorictl import SOURCE

LONGEST_REASON = 500
REASON_UNKNOWN = "no reason given"
KILLED = f"delivered {topology.CRASHES_BEFORE_DEAD_LETTER} times without an outcome"
"""The reason when the broker sets a message aside by itself: each consumer that took it died, or never answered."""
HELD_IN_HEADER = "x-sori-held-in"
"""The queue of an earlier version that a moved dead letter came from: the id of its hold is derived from that name."""

_BROKER_HEADERS = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_RETRY_QUEUES = frozenset(delay.name for delay in topology.RETRY_DELAYS)


@dataclass(frozen=True)
class Message:
    """A message as it lies among the dead letters."""

    body: bytes
    message_id: str | None
    headers: Mapping[str, Any]
    content_type: str | None = None
    timestamp: datetime | None = None


class DeadLetter(BaseModel):
    """A message that was set aside, without its body; what cannot be known is None."""

    model_config = ConfigDict(frozen=True)

    id: str
    queue: str
    job_id: str | None
    event_id: str | None
    event_type: str | None
    reason: str
    attempts: int
    first_failure: datetime | None
    last_failure: datetime | None
    replays: int
    service_version: str | None


def read(queue: topology.Queue, message: Message) -> DeadLetter:
    """Return what is known of a message among the dead letters of `queue`; reads anything, never raises."""
    about = events.envelope(message.body)
    headers = message.headers
    death = _death(headers)
    version = headers.get(topology.SERVICE_VERSION_HEADER)
    set_aside = headers.get(topology.LAST_FAILURE_HEADER, message.timestamp) if death is None else death.get("time")
    last = _time(set_aside)
    return DeadLetter(
        id=message.message_id or f"body-{hashlib.sha256(message.body).hexdigest()[:16]}",
        queue=queue.name,
        job_id=about.subject if about else None,
        event_id=about.id if about else None,
        event_type=about.type if about else None,
        reason=_text(headers.get(topology.REASON_HEADER)) if death is None else _broker_reason(death),
        attempts=_count(headers.get(topology.ATTEMPT_HEADER), 1),
        first_failure=_time(headers.get(topology.FIRST_FAILURE_HEADER))
        or (_time(death.get("time")) if death else last),
        last_failure=_time(death.get("time")) if death else last,
        replays=_count(headers.get(topology.REPLAYS_HEADER), 0),
        service_version=_text(version) if version is not None and death is None else None,
    )


def replay_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a replayed message: its attempts start again at 1, and its replays are counted.

    The broker's notes about its deaths are removed. With them, the broker would take the next retry for a message that
    goes round in circles, and drop it.
    """
    left_out = (*_BROKER_HEADERS, HELD_IN_HEADER)
    kept = {name: value for name, value in headers.items() if not name.lower().startswith(left_out)}
    replays = _count(headers.get(topology.REPLAYS_HEADER), 0) + 1
    return {**kept, topology.ATTEMPT_HEADER: 1, topology.REPLAYS_HEADER: replays}


def resumed(queue: topology.Queue, message: Message) -> JobResumed | None:
    """Return the event that resumes the job that this message holds; None when the message names no job."""
    about = events.envelope(message.body)
    if about is None:
        return None
    replays = _count(message.headers.get(topology.REPLAYS_HEADER), 0)
    held_in = message.headers.get(HELD_IN_HEADER)
    held_by = held_in if isinstance(held_in, str) else queue.name
    held_id = events.event_id(about.subject, JobHeld.TYPE, topology.held_step(held_by, about.id, replays))
    data = JobResumedData(held_id=held_id, queue=queue.name)
    return JobResumed.new(about.subject, data, source=SOURCE, traceparent=about.traceparent, step=held_id)


def _death(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the broker's `x-death` note when it set the message aside by itself; None when a service did.

    Notes of retry queues are skipped: every message that has waited for a retry has them.
    """
    notes = headers.get("x-death")
    if not isinstance(notes, list):
        return None
    of_queues = (note for note in notes if isinstance(note, Mapping) and note.get("queue") not in _RETRY_QUEUES)
    return next(of_queues, None)


def _broker_reason(death: Mapping[str, Any]) -> str:
    reason = _text(death.get("reason"))
    return KILLED if reason == "delivery_limit" else f"set aside by the broker: {reason}"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return str(value)[:LONGEST_REASON] if value else REASON_UNKNOWN


def _count(value: object, otherwise: int) -> int:
    return value if isinstance(value, int) and value >= 0 else otherwise


def _time(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)
