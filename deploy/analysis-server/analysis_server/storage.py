"""S3: which recordings may be fetched, and fetching one to a local file with bounded memory."""

import asyncio
import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aioboto3
from aiohttp import ClientError as StreamError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from analysis_server.errors import AnalysisError
from analysis_server.settings import Settings

_S3_URL = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)
_CHUNK = 1024 * 1024
_CHECK_SECONDS = 3
_NOT_THERE = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}
_PASSING = (BotoCoreError, StreamError, OSError, TimeoutError)  # the network's or the store's trouble


class OtherBucketError(Exception):
    """The address names a bucket that this server was not set up for."""


class AddressError(Exception):
    """The address is not of the form s3://bucket/key."""


def key_of(s3_url: str, bucket: str) -> str:
    """Return the key within `bucket` that an s3:// address names; raises AddressError or OtherBucketError."""
    match = _S3_URL.fullmatch(s3_url)
    # A store that keeps objects as files could be led out of its bucket by such parts.
    if match is None or {".", ".."} & set(match[2].split("/")) or not match[2].isprintable():
        raise AddressError
    if match[1] != bucket:
        raise OtherBucketError
    return match[2]


class Storage:
    """The one S3 client of the process; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._s3: Any = None

    async def __aenter__(self) -> "Storage":
        secret = self._settings.aws_secret_access_key
        session = aioboto3.Session(
            aws_access_key_id=self._settings.aws_access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            region_name=self._settings.aws_region,
        )
        limits = Config(
            connect_timeout=5,
            read_timeout=30,
            max_pool_connections=32,
            retries={"total_max_attempts": 2, "mode": "standard"},  # fetch() tries again itself
        )
        client = session.client("s3", endpoint_url=self._settings.s3_endpoint_url, config=limits)
        self._s3 = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fetch(self, key: str, path: Path) -> None:
        """Write the object to `path`, a chunk at a time, trying again for `STORAGE_SECONDS` when the store is away.

        Raises AnalysisError `audio_missing`, `audio_too_large`, `audio_forbidden` or `storage_unavailable`.
        """
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_PASSING),
            stop=stop_after_delay(self._settings.storage_seconds),
            wait=wait_exponential_jitter(initial=0.2, max=5),
            reraise=True,
        )
        try:
            await attempts(self._fetch, key, path)
        except ClientError as error:
            raise _refusal(error) from error
        except _PASSING as error:
            raise AnalysisError("storage_unavailable", "The storage of the recording could not be reached.") from error

    async def is_reachable(self) -> bool:
        """Say whether the bucket answers; a key that may only read objects is told 403, which is an answer too."""
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                await self._s3.head_bucket(Bucket=self._settings.s3_bucket_name)
        except ClientError as error:
            return _status(error) == 403  # noqa: PLR2004 - HTTP's Forbidden
        except _PASSING:
            return False
        return True

    async def _fetch(self, key: str, path: Path) -> None:
        answer = await self._s3.get_object(Bucket=self._settings.s3_bucket_name, Key=key)
        body = answer["Body"]
        async with body:
            self._check_size(answer["ContentLength"])
            with path.open("wb") as file:
                # The HTTP client holds the stream to its declared length: less is an error, more is not read.
                async for chunk in body.iter_chunks(_CHUNK):
                    await asyncio.to_thread(file.write, chunk)

    def _check_size(self, size: int) -> None:
        limit = self._settings.max_audio_bytes
        if size > limit:
            raise AnalysisError("audio_too_large", f"The recording's file is larger than {limit} bytes.")


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _refusal(error: ClientError) -> AnalysisError:
    if error.response.get("Error", {}).get("Code") in _NOT_THERE:
        return AnalysisError("audio_missing", "There is no recording at the given S3 address.")
    if _status(error) == 403:  # noqa: PLR2004 - HTTP's Forbidden
        return AnalysisError("audio_forbidden", "This server is not allowed to read the recording.")
    return AnalysisError("storage_unavailable", "The storage of the recording could not be reached.")
