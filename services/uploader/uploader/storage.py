"""S3: reads the inbox, keeps verified recordings under audio/, and empties the inbox in batches."""

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from tempfile import TemporaryFile
from typing import IO, Any, Self

import structlog

from chassis import objects
from chassis.errors import reason_of
from chassis.objects import Connection, Described, Objects
from chassis.periodic import Periodic
from chassis.s3 import DeletionError, Deletions, asking_for_none, bounded, translating
from chassis.settings import S3Settings
from contracts.events import AudioInfo
from uploader.uploads import Fetched, KeptRecording, StoredRecording

log = structlog.get_logger()

MEMORY_BYTES = 2 * 1024 * 1024
"""A recording larger than this goes through a temporary file instead of memory, and is copied within S3."""
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
CHUNK_BYTES = 256 * 1024
CONNECTIONS = 32
ATTEMPTS = 3
CALL_SECONDS = 90.0
"""The limit for a call, obstore's try and aioboto3's together: a silent S3 takes 30 s of it for each."""
DISCARD_SECONDS = 1.0
CLOSE_SECONDS = 1.0
DISCARDED_KEYS = 10_000
"""The most keys that wait to be deleted while S3 does not answer."""
DELETE_KEYS = 1000
"""S3's own limit for one DeleteObjects call."""


class Bucket:
    """The bucket; one client for the process, opened by `async with`."""

    def __init__(
        self, settings: S3Settings, connect: Callable[..., AbstractAsyncContextManager[Connection]] = objects.connected
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._bucket = settings.s3_bucket_name
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._objects = Objects(None, self._bucket)
        self._deletions = Deletions(None, self._bucket)
        self._discarded: list[str] = []
        self._discarding = Periodic(self.delete_discarded, seconds=DISCARD_SECONDS, waiting="inbox objects stay")

    async def __aenter__(self) -> Self:
        connected = self._connect(self._settings, connections=CONNECTIONS, attempts=ATTEMPTS)
        connection = await self._stack.enter_async_context(connected)
        self._s3, self._objects = connection.client, connection.objects
        self._deletions = Deletions(self._s3, self._bucket)
        self._discarding.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._discarding.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.delete_discarded()
        await self._stack.aclose()

    async def fetch(self, key: str) -> Fetched:
        """Read an object with bounded memory, hashing on the way; ObjectMissingError when there is none."""
        async with AsyncExitStack() as opened:
            async with bounded(CALL_SECONDS):
                described, chunks = await opened.enter_async_context(self._objects.opened(key, CHUNK_BYTES))
            with translating():
                return await _read(key, described.size_bytes, chunks)

    async def keep(self, fetched: Fetched, audio_key: str, recording: StoredRecording) -> str:
        """Keep what was fetched under another key, with `recording` as its metadata, and return its URL."""
        if fetched.size_bytes > MEMORY_BYTES:
            await self._copy(fetched.key, audio_key, recording)
        else:
            fetched.content.seek(0)
            async with asking_for_none(CALL_SECONDS):
                content = fetched.content.read()
                await self._objects.put(audio_key, content, recording.content_type, _metadata(recording))
        return f"s3://{self._bucket}/{audio_key}"

    async def find(self, prefix: str) -> KeptRecording | None:
        """Return the recording kept under a key that starts with `prefix`; None when there is none."""
        async with asking_for_none(CALL_SECONDS):
            listed = await self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1)
        if not listed.get("Contents"):
            return None
        key = listed["Contents"][0]["Key"]
        async with bounded(CALL_SECONDS):
            head = await self._objects.head(key)
        return KeptRecording(key, f"s3://{self._bucket}/{key}", _recording(head))

    async def remove_all(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`; DeletionError when one of them stays."""
        deleted: set[str] = set()
        # Looked at until nothing is left: only that proves that the store has done what it said.
        while keys := await self._listed(prefix):
            if deleted.issuperset(keys):
                raise DeletionError("still listed", keys)
            await self._deletions.delete(keys)
            deleted.update(keys)

    def discard(self, key: str) -> None:
        """Delete the object soon, together with others."""
        if len(self._discarded) < DISCARDED_KEYS:
            self._discarded.append(key)

    async def is_up(self) -> bool:
        """Return True when the bucket answers; raises when it does not."""
        await self._s3.head_bucket(Bucket=self._bucket)
        return True

    async def delete_discarded(self) -> None:
        """Delete the discarded objects; those that S3 does not delete now are tried again later."""
        keys = self._discarded[:DELETE_KEYS]
        try:
            await self._deletions.delete(keys)
        except DeletionError as error:
            log.warning("inbox objects stay for now", count=len(error.keys), reason=reason_of(error))
            # Behind the others, which S3 may delete.
            self._discarded = [*self._discarded[len(keys) :], *error.keys]
        except Exception as error:  # noqa: BLE001 - the recording is safe; leftovers are found by their age
            log.warning("inbox objects stay for now", count=len(keys), reason=reason_of(error))
        else:
            del self._discarded[: len(keys)]

    async def _copy(self, key: str, audio_key: str, recording: StoredRecording) -> None:
        """Copy an object within S3; ObjectMissingError when there is none."""
        with translating():
            await self._s3.copy_object(
                Bucket=self._bucket,
                Key=audio_key,
                CopySource={"Bucket": self._bucket, "Key": key},
                MetadataDirective="REPLACE",
                Metadata=_metadata(recording),
                ContentType=recording.content_type,
            )

    async def _listed(self, prefix: str) -> list[str]:
        """Return up to 1,000 keys that start with `prefix`."""
        async with asking_for_none(CALL_SECONDS):
            listed = await self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix)
        return [found["Key"] for found in listed.get("Contents", [])]


async def _read(key: str, size_bytes: int, chunks: AsyncIterator[bytes]) -> Fetched:
    """Read the chunks of an object of some size into memory, or into a temporary file when they are many."""
    large = size_bytes > MEMORY_BYTES
    # Either has a descriptor, by which a child process can open it, and neither has a name that could stay behind.
    content: IO[bytes] = TemporaryFile() if large else _in_memory()  # noqa: SIM115 - the caller closes it
    digest = hashlib.sha256()
    size = 0
    try:
        async for chunk in chunks:
            size += len(chunk)
            digest.update(chunk)
            if large:
                await asyncio.to_thread(content.write, chunk)
            else:
                content.write(chunk)
        content.seek(0)
        if not large:
            # What is kept is what was hashed, whatever a file does to the child process that decodes it.
            fcntl.fcntl(content.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        # After a full disk or a lost connection, half of a large file must not stay until the next try.
        content.close()
        raise
    return Fetched(key, content, size, digest.hexdigest())


def _in_memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("recording", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")


def _metadata(recording: StoredRecording) -> dict[str, str]:
    return {
        "sha256": recording.sha256,
        "duration-seconds": repr(recording.audio.duration_seconds),
        "sample-rate": str(recording.audio.sample_rate),
        "channels": str(recording.audio.channels),
        "codec": recording.audio.codec,
        "container": recording.audio.container,
        "waveform": bytes(recording.audio.waveform).hex(),
        "damaged-packets": str(recording.audio.damaged_packets),
    }


def _recording(head: Described) -> StoredRecording | None:
    """Return what `keep` wrote to the object's metadata; None when the store has lost any of it, as rclone may."""
    try:
        return StoredRecording(
            audio=_audio(head.metadata),
            sha256=head.metadata["sha256"],
            size_bytes=head.size_bytes,
            content_type=head.content_type,
        )
    except (KeyError, ValueError):
        return None


def _audio(metadata: Mapping[str, str]) -> AudioInfo:
    return AudioInfo(
        duration_seconds=float(metadata["duration-seconds"]),
        sample_rate=int(metadata["sample-rate"]),
        channels=int(metadata["channels"]),
        codec=metadata["codec"],
        container=metadata["container"],
        waveform=list(bytes.fromhex(metadata["waveform"])),
        damaged_packets=int(metadata.get("damaged-packets", 0)),
    )
