"""S3: fetching an object to a local file with bounded memory, and keeping small ones."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aioboto3
from aiohttp import ClientError as StreamError
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from analysis_server.errors import StorageError
from analysis_server.settings import Settings

_Answer = TypeVar("_Answer")

_CHUNK = 1024 * 1024
_CHECK_SECONDS = 3
_WRITE_SECONDS = 5
_NOT_THERE = {"NoSuchKey", "NoSuchBucket", "404", "NotFound"}
_PASSING = (BotoCoreError, StreamError, OSError, TimeoutError)  # the network's or the store's trouble


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
            retries={"total_max_attempts": 2, "mode": "standard"},  # we try again ourselves
        )
        client = session.client("s3", endpoint_url=self._settings.s3_endpoint_url, config=limits)
        self._s3 = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fetch(self, key: str, path: Path, limit: int) -> str:
        """Write the object to `path`, a chunk at a time, and return its ETag.

        Raises StorageError, and tries again for `STORAGE_SECONDS` while the store is away, as all reading does.
        """
        return await self._patiently(self._fetch, key, path, limit)

    async def look(self, key: str, limit: int) -> str:
        """Return the ETag of an object of at most `limit` bytes."""
        return await self._patiently(self._look, key, limit)

    async def read(self, key: str, limit: int) -> bytes:
        """Return an object of at most `limit` bytes."""
        return await self._patiently(self._read, key, limit)

    async def write(self, key: str, content: bytes) -> None:
        """Write a small object, or raise StorageError; nobody waits long for it."""
        with _told():
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._s3.put_object(Bucket=self._settings.s3_bucket_name, Key=key, Body=content)

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

    async def _patiently(self, call: Callable[..., Awaitable[_Answer]], *asked: Any) -> _Answer:
        attempts = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_delay(self._settings.storage_seconds),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            reraise=True,
        )
        with _told():
            return await attempts(call, *asked)

    async def _fetch(self, key: str, path: Path, limit: int) -> str:
        async with self._opened(key, limit) as (body, etag):
            with path.open("wb") as file:
                # The HTTP client holds the stream to its declared length: less is an error, more is not read.
                async for chunk in body.iter_chunks(_CHUNK):
                    await asyncio.to_thread(file.write, chunk)
        return etag

    async def _read(self, key: str, limit: int) -> bytes:
        async with self._opened(key, limit) as (body, _):
            content: bytes = await body.read()
        return content

    async def _look(self, key: str, limit: int) -> str:
        answer = await self._s3.head_object(Bucket=self._settings.s3_bucket_name, Key=key)
        return _etag(answer, limit)

    @asynccontextmanager
    async def _opened(self, key: str, limit: int) -> AsyncIterator[tuple[Any, str]]:
        answer = await self._s3.get_object(Bucket=self._settings.s3_bucket_name, Key=key)
        body = answer["Body"]
        async with body:
            yield body, _etag(answer, limit)


@contextmanager
def _told() -> Iterator[None]:
    """Turn the client's errors into ours."""
    try:
        yield
    except ClientError as error:
        raise StorageError(_fault(error)) from error
    except _PASSING as error:
        raise StorageError("unavailable") from error


def _etag(answer: dict[str, Any], limit: int) -> str:
    if answer["ContentLength"] > limit:
        raise StorageError("too_large")
    return str(answer["ETag"])


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _PASSING) or (isinstance(error, ClientError) and _status(error) >= 500)  # noqa: PLR2004 - HTTP's server errors


def _fault(error: ClientError) -> str:
    if error.response.get("Error", {}).get("Code") in _NOT_THERE:
        return "missing"
    return "forbidden" if _status(error) == 403 else "unavailable"  # noqa: PLR2004 - HTTP's Forbidden
