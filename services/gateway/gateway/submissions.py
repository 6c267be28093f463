"""Takes recordings and webhook calls in: what must be safe, and in which order, before either is answered."""

import hashlib
import secrets
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import structlog
from pydantic import JsonValue

from contracts import events, webhook
from contracts.events import (
    AnalysisWebhookReceived,
    AnalysisWebhookReceivedData,
    Event,
    JsonObject,
    Reference,
    UploadReceived,
)
from contracts.job import Job
from gateway import SERVICE

log = structlog.get_logger()

PREFIX = "inbox/"
"""Where recordings lie in the bucket until the uploader has verified them."""
FILENAME_CHARACTERS = 255
MAX_DEPTH = 100
"""Levels of a webhook body; an event adds some of its own, and readers of JSON give up at about 200."""


@dataclass(frozen=True)
class Recording:
    """What a job is made from: the same token and the same bytes are the same recording."""

    token_id: str
    sha256: str | None


@dataclass(frozen=True)
class StoredAudio:
    """A recording that the uploader has verified and kept."""

    key: str
    size_bytes: int
    content_type: str
    etag: str


class JobExistsError(Exception):
    """There is a job with this id already; `recording` is the one that was to become it now."""

    def __init__(self, recording: Recording) -> None:
        super().__init__("the job exists")
        self.recording = recording


class File(Protocol):
    """A file that is still arriving."""

    filename: str | None

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield its bytes."""


class Inbox(Protocol):
    """Where a recording's bytes go first."""

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store all of the chunks, or nothing."""

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        """Copy a kept recording into the inbox."""

    async def remove_all(self, keys: list[str]) -> None:
        """Delete objects."""


class Jobs(Protocol):
    """The job documents."""

    async def insert(self, job: Job) -> bool:
        """Keep a new job; False when there is one with this id."""


class References(Protocol):
    """What recordings are compared with."""

    async def of(self, token_id: str) -> Reference | None:
        """Return what a recording of this token is compared with, None when the catalogue has no such token."""


class Submissions:
    """Accepts recordings: once `accept` has returned, the recording reaches its end whatever dies."""

    def __init__(self, inbox: Inbox, jobs: Jobs, references: References) -> None:
        self._inbox = inbox
        self._jobs = jobs
        self._references = references

    async def accept(self, token_id: str, file: File, traceparent: str, job_id: str | None = None) -> UploadReceived:
        """Store the file and its job; the event returned is in the job's outbox and is to be published now.

        A job id is given when several requests may be about to make the same job. Each of them has an inbox object of
        its own, so that none writes over what another's event tells; JobExistsError when another one was faster.
        """
        if job_id is None:
            job_id = str(uuid4())
            key = f"{PREFIX}{job_id}"
        else:
            key = f"{PREFIX}{job_id}.{secrets.token_hex(8)}"
        # As the catalogue has it now, and before the bytes come: without MongoDB they would come in vain.
        reference = await self._references.of(token_id)
        measured = _Measured(file.chunks())
        await self._inbox.write(key, measured)
        data = events.UploadReceivedData(
            token_id=token_id,
            inbox_key=key,
            size_bytes=measured.size_bytes,
            sha256=measured.sha256,
            reference=reference,
        )
        event = UploadReceived.new(job_id, data, source=SERVICE, traceparent=traceparent)
        await self._insert(Job.received(event, _shown(file.filename)), event)
        return event

    async def accept_again(self, job: Job, audio: StoredAudio, traceparent: str) -> UploadReceived:
        """Make a new job of the recording that is kept of an old one; it goes an upload's way from here on.

        It is compared with what the catalogue has by now.
        """
        job_id = str(uuid4())
        data = events.UploadReceivedData(
            token_id=job.token_id,
            inbox_key=f"{PREFIX}{job_id}",
            size_bytes=audio.size_bytes,
            sha256=job.sha256,
            reference=await self._references.of(job.token_id),
        )
        await self._inbox.take_back(audio, data.inbox_key)
        event = UploadReceived.new(job_id, data, source=SERVICE, traceparent=traceparent)
        await self._insert(Job.received(event, job.filename, retry_of=job.job_id), event)
        return event

    async def _insert(self, job: Job, event: UploadReceived) -> None:
        # When this fails it may have been done all the same, so the object stays: the sweeper knows by then.
        if await self._jobs.insert(job):
            return
        try:
            await self._inbox.remove_all([event.data.inbox_key])
        except Exception as error:  # noqa: BLE001 - the sweeper finds it
            log.warning("inbox object stays behind", job_id=job.job_id, reason=type(error).__name__)
        raise JobExistsError(Recording(job.token_id, job.sha256))


async def sha256_of(file: File) -> str:
    """Read a file to its end, and keep nothing of it but its SHA-256."""
    measured = _Measured(file.chunks())
    async for _ in measured:
        pass
    return measured.sha256


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
