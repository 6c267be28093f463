"""Takes recordings in: what must be safe, and in which order, before an upload is answered."""

import asyncio
import hashlib
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self
from uuid import uuid4
from weakref import WeakValueDictionary

import structlog

from chassis.errors import reason_of
from contracts import events
from contracts.events import UploadReceived
from contracts.job import MAX_RETRIES, Job
from contracts.names import plain
from gateway import SERVICE
from gateway.audio import ArrivingFile, ObjectStore, Recording, StoredAudio
from gateway.jobs.documents import Jobs
from gateway.redrive import timing
from gateway.references.references import References

log = structlog.get_logger()

PREFIX = "inbox/"
"""The prefix of recordings that the uploader has not verified yet."""
FILENAME_CHARACTERS = 255
_WINDOWS_PATH = re.compile(r"[A-Za-z]:\\|\\\\")


@dataclass(frozen=True)
class Dubbed:
    """What was dubbed, by whom, since when it has been coming in, and the trace that the upload belongs to."""

    token_id: str
    owner: str | None
    traceparent: str
    began_at: datetime = field(default_factory=events.now)


class JobExistsError(Exception):
    """There is a job with this id already; `recording` is the one that another was to be made from."""

    def __init__(self, recording: Recording) -> None:
        super().__init__("the job exists")
        self.recording = recording


class RetriesSpentError(Exception):
    """As many retries of the recording are kept as may be."""


class Submissions:
    """Makes jobs of recordings. Once a method has returned, the job reaches its end even if this process dies."""

    def __init__(self, store: ObjectStore, jobs: Jobs, references: References, redrive_after: timedelta) -> None:
        self._store = store
        self._jobs = jobs
        self._references = references
        self._redrive_after = redrive_after
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        """By recordings that are being retried: only one retry of each is made at a time."""

    async def accept(self, dubbed: Dubbed, file: ArrivingFile, job_id: str | None = None) -> UploadReceived:
        """Store the file and its job; return the event that is to be published now. The job has it too.

        Give a job id when several requests may make the same job. Each of them writes an object of its own, so that
        none overwrites what another's event describes. JobExistsError when another request was faster.
        """
        if job_id is None:
            job_id = str(uuid4())
            key = f"{PREFIX}{job_id}"
        else:
            key = f"{PREFIX}{job_id}.{secrets.token_hex(8)}"
        # Before the bytes are read: while MongoDB is away they would be stored in vain.
        reference = await self._references.of(dubbed.token_id)
        measured = _Measured(file.chunks())
        await self._store.write(key, measured)
        data = events.UploadReceivedData(
            token_id=dubbed.token_id,
            metadata=file.metadata,
            owner=dubbed.owner,
            inbox_key=key,
            size_bytes=measured.size_bytes,
            sha256=measured.sha256,
            reference=reference,
        )
        event = UploadReceived.new(job_id, data, source=SERVICE, traceparent=dubbed.traceparent)
        job = self._job(event, _shown(file.filename), dubbed.began_at)
        # When this fails, the job may have been inserted all the same, so the object stays. The sweeper decides later.
        if not await self._jobs.insert(job):
            await self._remove(job.job_id, key)
            raise JobExistsError(Recording.of(job.token_id, job.sha256, job.metadata))
        return event

    async def accept_again(self, job: Job, audio: StoredAudio, traceparent: str) -> UploadReceived:
        """Make a new job of the recording that is kept of an old one; it is processed like an upload.

        The recording is compared with what the catalogue has now. RetriesSpentError when MAX_RETRIES of it are kept:
        each has a copy of its bytes. They are counted by numbers that only one job can have, so that all replicas
        together make no more. In one process retries of a recording take turns, so that few copies are made in vain.
        """
        began_at = events.now()
        first = job.recording_of or job.retry_of or job.job_id
        async with self._turns.setdefault(first, asyncio.Lock()):
            number = await self._free_number(first)
            job_id = str(uuid4())
            data = events.UploadReceivedData(
                **job.recording.passed_on(),
                inbox_key=f"{PREFIX}{job_id}",
                size_bytes=audio.size_bytes,
                sha256=job.sha256,
                reference=await self._references.of(job.token_id),
            )
            await self._store.take_back(audio, data.inbox_key)
            event = UploadReceived.new(job_id, data, source=SERVICE, traceparent=traceparent)
            made = self._job(event, job.filename, began_at, retry_of=job.job_id)
            await self._insert_retry(made.model_copy(update={"recording_of": first, "retry_number": number}))
        return event

    async def _insert_retry(self, job: Job) -> None:
        """Insert a retry, with another number if another replica was faster; RetriesSpentError when none is left."""
        while not await self._jobs.insert(job):
            try:
                number = await self._free_number(job.recording_of or "")
            except RetriesSpentError:
                await self._remove(job.job_id, f"{PREFIX}{job.job_id}")
                raise
            job = job.model_copy(update={"retry_number": number})

    async def _free_number(self, first: str) -> int:
        """Return a number that no retry of the recording has; RetriesSpentError."""
        free = set(range(1, MAX_RETRIES + 1)) - await self._jobs.retry_numbers(first)
        if not free:
            raise RetriesSpentError
        return min(free)

    def _job(self, event: UploadReceived, filename: str | None, began_at: datetime, retry_of: str | None = None) -> Job:
        first_look = timing.first_look(event.time, self._redrive_after)
        return Job.received(event, filename, retry_of, first_look).model_copy(update={"began_at": began_at})

    async def _remove(self, job_id: str, key: str) -> None:
        try:
            await self._store.remove_all([key])
        except Exception as error:  # noqa: BLE001 - the sweeper will remove it
            log.warning("inbox object stays behind", job_id=job_id, reason=reason_of(error))


async def sha256_of(file: ArrivingFile) -> str:
    """Read a file to its end without keeping it, and return its SHA-256."""
    measured = _Measured(file.chunks())
    async for _ in measured:
        pass
    return measured.sha256


class _Measured:
    """Passes chunks on, and counts and hashes their bytes."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self.size_bytes = 0

    def __aiter__(self) -> Self:
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
    """Return a client's file name without its folders (RFC 7578, section 4.2) and hidden characters, short enough.

    It is never part of a key.
    """
    name = plain(filename or "")
    if _WINDOWS_PATH.match(name):
        name = name.replace("\\", "/")
    return (name.rstrip("/").rpartition("/")[2] or name)[:FILENAME_CHARACTERS] or None
