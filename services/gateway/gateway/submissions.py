"""Takes recordings and webhook calls in: what must be safe, and in which order, before either is answered."""

import hashlib
import unicodedata
from collections.abc import AsyncIterator
from typing import Protocol
from uuid import uuid4

from pydantic import JsonValue

from contracts import events, webhook
from contracts.events import AnalysisWebhookReceived, AnalysisWebhookReceivedData, Event, JsonObject, UploadReceived
from contracts.job import Job
from gateway import SERVICE
from gateway.sweeper import PREFIX

FILENAME_CHARACTERS = 255
MAX_DEPTH = 100
"""Levels of a webhook body; an event adds some of its own, and readers of JSON give up at about 200."""


class File(Protocol):
    """A file that is still arriving."""

    filename: str | None

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes."""


class Inbox(Protocol):
    """Where a recording's bytes go first."""

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store all of the chunks, or nothing."""


class Jobs(Protocol):
    """The job documents."""

    async def insert(self, job: Job) -> None:
        """Keep a new job."""


class Submissions:
    """Accepts recordings: once `accept` has returned, the recording reaches its end whatever dies."""

    def __init__(self, inbox: Inbox, jobs: Jobs) -> None:
        self._inbox = inbox
        self._jobs = jobs

    async def accept(self, token_id: str, file: File, traceparent: str) -> UploadReceived:
        """Store the file and its job; the event returned is in the job's outbox and is to be published now."""
        job_id = str(uuid4())
        key = f"{PREFIX}{job_id}"
        measured = _Measured(file.chunks())
        await self._inbox.write(key, measured)
        data = events.UploadReceivedData(
            token_id=token_id, inbox_key=key, size_bytes=measured.size_bytes, sha256=measured.sha256
        )
        event = UploadReceived.new(job_id, data, source=SERVICE, traceparent=traceparent)
        # When this fails it may have been done all the same, so the object stays: the sweeper knows by then.
        await self._jobs.insert(Job.received(event, _shown(file.filename)))
        return event


def webhook_event(job_id: str, attempt: int, body: JsonObject | None, traceparent: str) -> Event:
    """Return the event of a believable webhook call; the same call again gives the same event id."""
    text = "too large" if body is None else events.to_json(body)
    step = f"{attempt}/{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    data = AnalysisWebhookReceivedData(attempt=attempt, body=body)
    return AnalysisWebhookReceived.new(job_id, data, source=SERVICE, traceparent=traceparent, step=step)


def too_large_to_keep(body: JsonObject, max_result_bytes: int) -> bool:
    """Tell whether the result in a webhook body is larger, as compact JSON, than may be kept, or nested too deeply."""
    if _depth(body) > MAX_DEPTH:
        return True
    if len(events.to_json(body).encode()) <= max_result_bytes:
        return False
    outcome = webhook.outcome(body)
    return isinstance(outcome, webhook.Success) and len(events.to_json(outcome.result).encode()) > max_result_bytes


def _depth(value: JsonValue) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


class _Measured:
    """Passes chunks on, measuring and hashing what passes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __aiter__(self) -> "_Measured":
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
        return chunk

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _shown(filename: str | None) -> str | None:
    """Return a client's file name without control characters, short enough to keep; it is never part of a key."""
    if not filename:
        return None
    return "".join(c for c in filename if unicodedata.category(c)[0] != "C")[:FILENAME_CHARACTERS] or None
