"""What happens to a recording in the inbox: it is verified and kept, or rejected with a reason."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import IO, Protocol

import structlog

from chassis.errors import AwayError, BackEndError, ObjectMissingError, reason_of
from contracts.audio import container
from contracts.events import (
    AudioInfo,
    AudioRemoved,
    AudioRemovedData,
    AudioStored,
    AudioStoredData,
    Event,
    JobPurged,
    UploadReceived,
    UploadRejected,
    UploadRejectedData,
)
from contracts.failures import FailureCode
from decoding.errors import RejectedError
from uploader import SERVICE
from uploader.errors import InHandError

log = structlog.get_logger()

TELLS_AGAIN = "/sori/gateway"
"""The source of purges that are told again until they are done."""


@dataclass(frozen=True)
class Fetched:
    """The bytes of the object under `key`, to be closed after use."""

    key: str
    content: IO[bytes]
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredRecording:
    """What is known of a recording once it is kept."""

    audio: AudioInfo
    sha256: str
    size_bytes: int
    content_type: str


@dataclass(frozen=True)
class KeptRecording:
    """A recording under audio/; `recording` is None when the store has lost its description."""

    key: str
    url: str
    recording: StoredRecording | None


class ObjectStore(Protocol):
    """The store of recordings."""

    async def fetch(self, key: str) -> Fetched:
        """Read an object; ObjectMissingError when there is none."""

    async def keep(self, fetched: Fetched, audio_key: str, recording: StoredRecording) -> str:
        """Keep what was fetched where it stays and return its URL.

        Raises ObjectMissingError when it is copied and its own object is gone; what is in memory needs none any more.
        """

    async def find(self, prefix: str) -> KeptRecording | None:
        """Return the recording kept under a key that starts with `prefix`; None when there is none."""

    def discard(self, key: str) -> None:
        """Delete the object soon; it stays when this process ends before that."""

    async def remove_all(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`; BackEndError when S3 refuses to delete one of them."""


class Decoder(Protocol):
    """Decodes recordings."""

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        """Decode every frame and return what was measured; RejectedError when the recording cannot be used."""


class Uploads:
    """Turns upload.received into audio.stored or upload.rejected; safe to repeat at any point."""

    def __init__(self, storage: ObjectStore, decoder: Decoder) -> None:
        self._storage = storage
        self._decoder = decoder
        self._in_hand: Counter[str] = Counter()

    async def store(self, event: UploadReceived) -> Event:
        """Verify and keep the recording, or reject it; return the event to publish."""
        with self._holding(event.subject):
            return await _told(event, self._keep(event))

    async def store_again(self, event: UploadReceived) -> Event | None:
        """Do the same for a redriven event: what is kept is told, and not judged again.

        None when this process is storing that very recording now.
        """
        if self._in_hand[event.subject]:
            return None
        with self._holding(event.subject):
            return await _told(event, self._find_or_keep(event))

    async def purge(self, event: JobPurged) -> Event | None:
        """Remove the job's recording, first from the inbox, so that nothing can be copied from there any more.

        Return the event that says that nothing is left; None when S3 refuses and the gateway tells `event` again.
        Raises what S3 says when it refuses and nobody does, and InHandError when the recording was being stored
        meanwhile.
        """
        try:
            await self._storage.remove_all(_inbox_prefix(event.subject))
            await self._storage.remove_all(_audio_prefix(event.subject))
        except BackEndError as error:
            log.error("S3 does not remove a purged recording", reason=reason_of(error))  # noqa: TRY400 - a traceback adds nothing to the reason
            if event.source != TELLS_AGAIN or isinstance(error, AwayError):
                raise
            return None
        if self._in_hand[event.subject]:
            raise InHandError(event.subject)
        data = AudioRemovedData(**event.data.passed_on())
        return AudioRemoved.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)

    @contextmanager
    def _holding(self, job_id: str) -> Iterator[None]:
        self._in_hand[job_id] += 1
        try:
            yield
        finally:
            self._in_hand[job_id] -= 1
            if not self._in_hand[job_id]:
                del self._in_hand[job_id]

    async def _find_or_keep(self, event: UploadReceived) -> tuple[str, StoredRecording]:
        return await self._find(event) or await self._keep(event)

    async def _find(self, event: UploadReceived) -> tuple[str, StoredRecording] | None:
        kept = await self._storage.find(_audio_prefix(event.subject))
        if kept is None:
            return None
        if kept.recording is not None:
            return kept.url, kept.recording
        async with self._fetched(kept.key) as fetched:
            return kept.url, await self._verify(fetched, event)

    async def _keep(self, event: UploadReceived) -> tuple[str, StoredRecording]:
        try:
            async with self._fetched(event.data.inbox_key) as fetched:
                recording = await self._verify(fetched, event)
                # Analysis servers recognise the format by the file's name.
                key = f"{_audio_prefix(event.subject)}{container(recording.audio.container).extension}"
                return await self._storage.keep(fetched, key, recording), recording
        except ObjectMissingError:
            # The inbox object is deleted once the recording is kept, so this message was probably handled before.
            kept = await self._find(event)
            if kept is None:
                raise
            return kept

    @asynccontextmanager
    async def _fetched(self, key: str) -> AsyncIterator[Fetched]:
        fetched = await self._storage.fetch(key)
        try:
            yield fetched
        finally:
            # Off the event loop: closing a large temporary file frees its disk blocks, which takes time.
            await asyncio.to_thread(fetched.content.close)

    async def _verify(self, fetched: Fetched, event: UploadReceived) -> StoredRecording:
        if event.data.sha256 not in {None, fetched.sha256}:
            raise RejectedError(FailureCode.CHECKSUM_MISMATCH)
        audio = await self._decoder.inspect(fetched.content)
        media_type = container(audio.container).media_type
        return StoredRecording(audio, fetched.sha256, fetched.size_bytes, media_type)


def _inbox_prefix(job_id: str) -> str:
    """Return the prefix of the job's inbox keys; an upload may append a part of its own.

    All job ids have the same length, so none is a prefix of another.
    """
    return f"inbox/{job_id}"


def _audio_prefix(job_id: str) -> str:
    return f"audio/{job_id}."


async def _told(event: UploadReceived, keeping: Awaitable[tuple[str, StoredRecording]]) -> Event:
    """Return the event that tells how the recording was kept, or why it was not."""
    try:
        url, recording = await keeping
    except ObjectMissingError:
        return _rejected(event, FailureCode.AUDIO_MISSING)
    except RejectedError as error:
        return _rejected(event, error.reason)
    return _stored(event, url, recording)


def _stored(event: UploadReceived, url: str, recording: StoredRecording) -> AudioStored:
    data = AudioStoredData(
        **event.data.passed_on(),
        s3_url=url,
        sha256=recording.sha256,
        size_bytes=recording.size_bytes,
        audio=recording.audio,
        reference=event.data.reference,
    )
    return AudioStored.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)


def _rejected(event: UploadReceived, code: FailureCode) -> UploadRejected:
    data = UploadRejectedData(**event.data.passed_on(), code=code)
    return UploadRejected.new(event.subject, data, source=SERVICE, traceparent=event.traceparent)
