"""S3: writes uploads into inbox/ while they arrive, and reads audio/, both with bounded memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import datetime
from io import BytesIO
from typing import Any, Self

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from gateway.errors import AudioGoneError, BackEndError
from gateway.settings import Settings
from gateway.submissions import PREFIX, StoredAudio

PART_BYTES = 5 * 1024 * 1024
"""S3's smallest part. What an upload holds in memory is one part that fills, or one that is being sent."""
PARTS_IN_FLIGHT = 2
"""Parts sent at once by this process: more would take memory and gain no speed."""
CALL_SECONDS = 60.0
"""For a call with its repeat; less than the edge waits. The client's own limits begin once a request is sent, and its
body is not sent before `Expect: 100-continue` is answered: who says nothing would be waited for without end."""
ABORT_SECONDS = 5.0
"""How long an upload that has failed waits for its parts to go; what does not answer is left to the sweeper."""
READ_BYTES = 64 * 1024
UNKNOWN_TYPE = "application/octet-stream"
CONNECTIONS = 128
"""As many as requests may want at once: uploads, audio that is read, and what the sweeper does."""

_GONE = {"NoSuchKey", "NotFound", "404", "PreconditionFailed", "412"}
"""What S3 answers about a key where there is nothing, or no longer the same."""


class Storage:
    """The bucket; one client for the process, opened by `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket = settings.s3_bucket_name
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._slots = asyncio.Semaphore(PARTS_IN_FLIGHT)

    async def __aenter__(self) -> Self:
        session = aioboto3.Session(
            aws_access_key_id=self._settings.aws_access_key_id.get_secret_value(),
            aws_secret_access_key=self._settings.aws_secret_access_key.get_secret_value(),
            region_name=self._settings.aws_region,
        )
        config = AioConfig(
            signature_version="s3v4",
            max_pool_connections=CONNECTIONS,
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 2},
            s3={"addressing_style": "path" if self._settings.s3_endpoint_url else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client("s3", endpoint_url=self._settings.s3_endpoint_url, config=config)
        self._s3 = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
        """Store all of `chunks` under `key`, or nothing when they, or S3, fail (BackEndError) on the way."""
        part = BytesIO()
        size = await _fill(part, chunks)
        if size < PART_BYTES:
            await self._call("put_object", Key=key, Body=part, ContentType=content_type)
        else:
            await self._put_parts(key, part, chunks, content_type)

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        """Copy a kept recording into the inbox, inside S3; AudioGoneError when it is no longer there."""
        source = {"Bucket": self._bucket, "Key": audio.key}
        with _noticing_gone():
            await self._call("copy_object", Key=key, CopySource=source, CopySourceIfMatch=audio.etag)

    async def find_audio(self, job_id: str) -> StoredAudio | None:
        """Return the recording that is kept for a job, None when there is none."""
        listed = await self._call("list_objects_v2", Prefix=f"audio/{job_id}.", MaxKeys=1)
        if not listed.get("Contents"):
            return None
        return await self.find(listed["Contents"][0]["Key"])

    async def find(self, key: str) -> StoredAudio | None:
        """Return the audio under a key, None when there is none."""
        try:
            with _noticing_gone():
                head = await self._call("head_object", Key=key)
        except AudioGoneError:
            return None
        return StoredAudio(key, head["ContentLength"], head.get("ContentType", UNKNOWN_TYPE), head["ETag"])

    @asynccontextmanager
    async def read(self, audio: StoredAudio, asked: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a Range, whose connection is given back at the end; AudioGoneError when the recording has gone."""
        with _noticing_gone():
            answer = await self._call("get_object", Key=audio.key, Range=asked, IfMatch=audio.etag)
        body = answer["Body"]
        async with body:  # what this gives is the response beneath, which has no chunks
            yield body.iter_chunks(READ_BYTES)

    async def older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """Yield the keys of objects that were written before `moment`, a page of up to 1,000 at a time."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=PREFIX)
        async for page in pages:
            keys = [found["Key"] for found in page.get("Contents", []) if found["LastModified"] < moment]
            if keys:
                yield keys

    async def remove_all(self, keys: list[str]) -> None:
        """Delete up to 1,000 objects at once."""
        if keys:
            objects = [{"Key": key} for key in keys]
            await self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})

    async def remove_under(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""
        async for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            await self.remove_all([found["Key"] for found in page.get("Contents", [])])

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads under `prefix` that were begun before `moment`; return how many."""
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
        aborted = 0
        with suppress(self._s3.exceptions.NoSuchUpload):  # rclone says so when there are none
            async for page in pages:
                old = [upload for upload in page.get("Uploads", []) if upload["Initiated"] < moment]
                for upload in old:
                    await self._abort({"Key": upload["Key"], "UploadId": upload["UploadId"]})
                aborted += len(old)
        return aborted

    async def is_up(self) -> bool:
        """Tell whether the bucket answers."""
        await self._s3.head_bucket(Bucket=self._bucket)
        return True

    async def _put_parts(self, key: str, part: BytesIO, chunks: AsyncIterator[bytes], content_type: str) -> None:
        """Send the part, then fill it anew, until there is nothing left: one buffer for the whole upload."""
        started = await self._call("create_multipart_upload", Key=key, ContentType=content_type)
        upload = {"Key": key, "UploadId": started["UploadId"]}
        try:
            parts: list[dict[str, object]] = []
            more = True
            while more:
                number = len(parts) + 1
                async with self._slots:
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

    async def _call(self, operation: str, **arguments: object) -> Any:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await getattr(self._s3, operation)(Bucket=self._bucket, **arguments)
        except (ClientError, BotoCoreError, OSError) as error:
            raise BackEndError("S3") from error


@contextmanager
def _noticing_gone() -> Iterator[None]:
    try:
        yield
    except BackEndError as error:
        response = getattr(error.__cause__, "response", {})
        if response.get("Error", {}).get("Code") in _GONE:
            raise AudioGoneError from error
        raise


async def _fill(part: BytesIO, chunks: AsyncIterator[bytes]) -> int:
    """Overwrite `part` with chunks up to a part's size or, at the end, with what is left; return its size in bytes."""
    part.seek(0)
    async for chunk in chunks:
        part.write(chunk)
        if part.tell() >= PART_BYTES:
            break
    part.truncate()
    size = part.tell()
    part.seek(0)
    return size
