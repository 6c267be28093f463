"""S3: reads the inbox, copies what is verified to audio/, and empties the inbox in batches."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from io import BytesIO
from tempfile import TemporaryFile
from typing import IO, Any, Self

import aioboto3
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from contracts.events import AudioInfo
from uploader.errors import AwayError, DeletionError, ObjectMissingError
from uploader.settings import Settings
from uploader.uploads import Fetched, Kept, StoredRecording

log = structlog.get_logger()

MEMORY_BYTES = 2 * 1024 * 1024
"""A recording larger than this goes through a temporary file instead of memory."""
CHUNK_BYTES = 256 * 1024
DISCARD_SECONDS = 1.0
CLOSE_SECONDS = 1.0
DISCARDED_KEYS = 10_000
"""How many keys wait to be deleted while the store does not answer."""
DELETE_KEYS = 1000
"""S3's own limit for one DeleteObjects call."""


class Storage:
    """The bucket; one client for the process, opened by `async with`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bucket = settings.s3_bucket_name
        self._stack = AsyncExitStack()
        self._s3: Any = None
        self._discarded: list[str] = []
        self._discarding: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        session = aioboto3.Session(
            aws_access_key_id=self._settings.aws_access_key_id.get_secret_value(),
            aws_secret_access_key=self._settings.aws_secret_access_key.get_secret_value(),
            region_name=self._settings.aws_region,
        )
        config = AioConfig(
            signature_version="s3v4",
            max_pool_connections=32,
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path" if self._settings.s3_endpoint_url else "auto"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = session.client("s3", endpoint_url=self._settings.s3_endpoint_url, config=config)
        self._s3 = await self._stack.enter_async_context(client)
        self._discarding = asyncio.create_task(self._discard_in_batches())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._discarding is not None:
            self._discarding.cancel()
            await asyncio.wait([self._discarding])
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._delete_discarded()
        await self._stack.aclose()

    async def fetch(self, key: str) -> Fetched:
        """Read an object with bounded memory, hashing on the way; ObjectMissingError when there is none."""
        with _translating():
            answer = await self._s3.get_object(Bucket=self._bucket, Key=key)
        large = answer["ContentLength"] > MEMORY_BYTES
        content: IO[bytes] = TemporaryFile() if large else BytesIO()  # noqa: SIM115 - closed by whoever asked for it
        try:
            with _translating():
                return await _read(answer["Body"], content, off_the_loop=large)
        except BaseException:
            # A full disk, a lost connection: what there is of a large file shall not stay until the next try.
            content.close()
            raise

    async def keep(self, inbox_key: str, audio_key: str, recording: StoredRecording) -> str:
        """Copy the object inside S3 and return its URL; what was found out rides along as its metadata."""
        with _translating():
            await self._s3.copy_object(
                Bucket=self._bucket,
                Key=audio_key,
                CopySource={"Bucket": self._bucket, "Key": inbox_key},
                MetadataDirective="REPLACE",
                Metadata=_metadata(recording),
                ContentType=recording.content_type,
            )
        return f"s3://{self._bucket}/{audio_key}"

    async def find(self, prefix: str) -> Kept | None:
        """Return the recording kept under a key that starts with `prefix`."""
        with _translating():
            listed = await self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix, MaxKeys=1)
            if not listed.get("Contents"):
                return None
            key = listed["Contents"][0]["Key"]
            head = await self._s3.head_object(Bucket=self._bucket, Key=key)
        return Kept(key, f"s3://{self._bucket}/{key}", _recording(head))

    async def remove_all(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`; DeletionError when one of them stays."""
        with _translating():
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            async for page in pages:
                await self._delete([found["Key"] for found in page.get("Contents", [])])

    def discard(self, key: str) -> None:
        """Delete the object soon, together with others."""
        if len(self._discarded) < DISCARDED_KEYS:
            self._discarded.append(key)

    async def is_up(self) -> bool:
        """Tell whether the bucket answers."""
        await self._s3.head_bucket(Bucket=self._bucket)
        return True

    async def _discard_in_batches(self) -> None:
        while True:
            await asyncio.sleep(DISCARD_SECONDS)
            await self._delete_discarded()

    async def _delete_discarded(self) -> None:
        keys = self._discarded[:DELETE_KEYS]
        try:
            await self._delete(keys)
        except Exception as error:  # noqa: BLE001 - the work is done; what stays behind in the end is found by its age
            log.warning("inbox objects stay for now", count=len(keys), reason=type(error).__name__)
        else:
            del self._discarded[: len(keys)]

    async def _delete(self, keys: list[str]) -> None:
        if not keys:
            return
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self._s3.delete_objects(Bucket=self._bucket, Delete=objects)
        # S3 answers 200 all the same, and lists what it did not delete.
        if errors := answer.get("Errors"):
            raise DeletionError(errors[0].get("Code", ""))


async def _read(body: Any, content: IO[bytes], *, off_the_loop: bool) -> Fetched:
    digest = hashlib.sha256()
    size = 0
    async with body:
        async for chunk in body.iter_chunks(CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
            if off_the_loop:
                await asyncio.to_thread(content.write, chunk)
            else:
                content.write(chunk)
    content.seek(0)
    return Fetched(content=content, size_bytes=size, sha256=digest.hexdigest())


@contextmanager
def _translating() -> Iterator[None]:
    """Tell what is missing, and what is away, from what is wrong."""
    try:
        yield
    except ClientError as error:
        raise _translated(error) from error
    except ParamValidationError:
        raise  # the request can never be made: the message's own fault
    except (BotoCoreError, TimeoutError, ConnectionError) as error:
        raise AwayError(f"S3: {type(error).__name__}") from error


def _translated(error: ClientError) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in {"NoSuchKey", "404", "NotFound"}:
        return ObjectMissingError(code)
    # Full, overloaded or broken: S3's own trouble (HTTP's server errors), whatever the message.
    return AwayError(f"S3: {code or status}") if status >= 500 else error  # noqa: PLR2004 - as said above


def _metadata(recording: StoredRecording) -> dict[str, str]:
    return {
        "sha256": recording.sha256,
        "duration-seconds": repr(recording.audio.duration_seconds),
        "sample-rate": str(recording.audio.sample_rate),
        "channels": str(recording.audio.channels),
        "codec": recording.audio.codec,
        "container": recording.audio.container,
        "waveform": bytes(recording.audio.waveform).hex(),
    }


def _recording(head: dict[str, Any]) -> StoredRecording | None:
    """Return what was found out when the recording was kept; None when the store has lost it, as rclone's may."""
    metadata = head["Metadata"]
    if "sha256" not in metadata:
        return None
    audio = AudioInfo(
        duration_seconds=float(metadata["duration-seconds"]),
        sample_rate=int(metadata["sample-rate"]),
        channels=int(metadata["channels"]),
        codec=metadata["codec"],
        container=metadata["container"],
        waveform=list(bytes.fromhex(metadata["waveform"])),
    )
    return StoredRecording(
        audio=audio,
        sha256=metadata["sha256"],
        size_bytes=head["ContentLength"],
        content_type=head.get("ContentType", ""),
    )
