"""S3: writes files into the bucket while they arrive, and reads audio out of it, both with bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from io import BytesIO
from typing import Any, Self

from chassis import objects
from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.objects import Objects
from chassis.s3 import Deletions, UnsupportedError, asking_for_none, bounded, translating
from chassis.settings import S3Settings
from contracts.audio import UNKNOWN_TYPE, media_type
from gateway.audio import AudioGoneError, StoredAudio

PART_BYTES = 5 * 1024 * 1024
"""S3's smallest part. Each upload holds one part in memory: it is filled, sent, and filled again."""
PARTS_IN_FLIGHT = 2
"""How many parts this process sends at once: more would take memory and gain no speed."""
CALL_SECONDS = 60.0
"""The limit for a call, obstore's try and aioboto3's together; less than the edge waits. aioboto3's own limits begin
once a request is sent: without this limit an S3 that reads no body would hold us for ever.
"""
ABORT_SECONDS = 5.0
"""How long a failed upload waits for its parts to be removed; the sweeper aborts what is left."""
READ_BYTES = 64 * 1024
CONNECTIONS = 128
"""Enough for uploads, readers of audio and the sweepers at the same time."""
ATTEMPTS = 2


class Bucket:
    """The bucket; one client for the process, opened by `async with`."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._name = settings.s3_bucket_name
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._objects = Objects(None, self._name)
        self._deletions = Deletions(None, self._name)
        self._sending = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def __aenter__(self) -> Self:
        connected = objects.connected(self._settings, connections=CONNECTIONS, attempts=ATTEMPTS)
        connection = await self._stack.enter_async_context(connected)
        self._s3, self._objects = connection.client, connection.objects
        self._deletions = Deletions(self._s3, self._name)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
        """Store all of `chunks` under `key`, or nothing when they, or S3, fail (BackEndError) on the way."""
        part = BytesIO()
        size = await _fill(part, chunks)
        if size < PART_BYTES:
            async with _asking():
                await self._objects.put(key, part.getvalue(), content_type)
        else:
            await self._put_parts(key, part, chunks, content_type)

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        """Copy kept audio to another key, inside S3; AudioGoneError when it is no longer there."""
        source = {"Bucket": self._name, "Key": audio.key}
        async with _asking_for_audio():
            await self._s3.copy_object(Bucket=self._name, Key=key, CopySource=source, CopySourceIfMatch=audio.etag)

    async def find_audio(self, job_id: str) -> StoredAudio | None:
        """Return the recording that is kept for a job, None when there is none."""
        listed = await self._call("list_objects_v2", Prefix=f"audio/{job_id}.", MaxKeys=1)
        if not listed.get("Contents"):
            return None
        return await self.find(listed["Contents"][0]["Key"])

    async def find(self, key: str) -> StoredAudio | None:
        """Return the audio under a key, None when there is none.

        A store may forget what it was told of an object, and then guesses: an extension of ours says it better.
        """
        try:
            async with _asking_for_audio():
                head = await self._objects.head(key)
        except AudioGoneError:
            return None
        return StoredAudio(key, head.size_bytes, media_type(key) or head.content_type or UNKNOWN_TYPE, head.etag)

    @asynccontextmanager
    async def read(self, audio: StoredAudio, first: int, last: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a range of audio, and give its connection back at the end; AudioGoneError when the audio is gone."""
        async with AsyncExitStack() as opened:
            async with _asking_for_audio():
                body = self._objects.opened(audio.key, READ_BYTES, etag=audio.etag, part=(first, last))
                _, chunks = await opened.enter_async_context(body)
            yield chunks

    async def older_than(self, prefix: str, moment: datetime) -> AsyncIterator[list[str]]:
        """Yield the keys under `prefix` that were written before `moment`, a page of up to 1,000 at a time."""
        async for page in self._pages("list_objects_v2", prefix):
            keys = [found["Key"] for found in page.get("Contents", []) if found["LastModified"] < moment]
            if keys:
                yield keys

    async def remove_all(self, keys: list[str]) -> None:
        """Delete up to 1,000 objects at once; DeletionError when some of them stay."""
        async with bounded(CALL_SECONDS):
            await self._deletions.delete(keys)

    async def remove_under(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""
        async for page in self._pages("list_objects_v2", prefix):
            await self.remove_all([found["Key"] for found in page.get("Contents", [])])

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads under `prefix` that were begun before `moment`; return how many."""
        aborted = 0
        with suppress(UnsupportedError):  # not every store lists them; such a store must remove them by itself
            async for page in self._pages("list_multipart_uploads", prefix):
                old = [upload for upload in page.get("Uploads", []) if upload["Initiated"] < moment]
                for upload in old:
                    await self._abort({"Key": upload["Key"], "UploadId": upload["UploadId"]})
                aborted += len(old)
        return aborted

    async def is_up(self) -> bool:
        """Tell whether the bucket answers."""
        await self._s3.head_bucket(Bucket=self._name)
        return True

    async def _put_parts(self, key: str, part: BytesIO, chunks: AsyncIterator[bytes], content_type: str) -> None:
        """Send the part and fill it again until nothing is left: the whole upload uses one buffer."""
        started = await self._call("create_multipart_upload", Key=key, ContentType=content_type)
        upload = {"Key": key, "UploadId": started["UploadId"]}
        try:
            parts: list[dict[str, object]] = []
            more = True
            while more:
                number = len(parts) + 1
                async with self._sending:
                    sent = await self._call("upload_part", **upload, PartNumber=number, Body=part)
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
                more = await _fill(part, chunks) > 0
            await self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": parts})
        except BaseException:
            await asyncio.shield(self._abort(upload))
            raise

    async def _abort(self, upload: dict[str, object]) -> None:
        with suppress(BackEndError, TimeoutError):
            async with asyncio.timeout(ABORT_SECONDS):
                await self._call("abort_multipart_upload", **upload)

    async def _pages(self, operation: str, prefix: str) -> AsyncIterator[dict[str, Any]]:
        pages = self._s3.get_paginator(operation).paginate(Bucket=self._name, Prefix=prefix)
        # rclone answers NoSuchUpload when it has no multipart uploads to list.
        with translating(), suppress(self._s3.exceptions.NoSuchUpload):
            async for page in pages:
                yield page

    async def _call(self, operation: str, **arguments: object) -> Any:
        async with _asking():
            return await getattr(self._s3, operation)(Bucket=self._name, **arguments)


@asynccontextmanager
async def _asking_for_audio() -> AsyncIterator[None]:
    """Bound a call and translate its errors; AudioGoneError when the object is gone or was replaced."""
    try:
        with _reaching():
            async with bounded(CALL_SECONDS):
                yield
    except ObjectMissingError as error:
        raise AudioGoneError from error


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    """Bound a call that asks for no object, and translate its errors."""
    with _reaching():
        async with asking_for_none(CALL_SECONDS):
            yield


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What the driver lets through, such as too many open files: nothing here but a call can have raised it.
        raise AwayError("S3", type(error).__name__) from error


async def _fill(part: BytesIO, chunks: AsyncIterator[bytes]) -> int:
    """Overwrite `part` with chunks until it has a part's size or nothing is left; return its size in bytes."""
    part.seek(0)
    async for chunk in chunks:
        part.write(chunk)
        if part.tell() >= PART_BYTES:
            break
    part.truncate()
    size = part.tell()
    part.seek(0)
    return size
