"""S3: fetches objects to local files with bounded memory; reads, writes, lists and deletes small objects."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientError as StreamError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from analysis_server.errors import StorageError
from analysis_server.settings import Settings
from chassis import s3
from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.s3 import translating

_Answer = TypeVar("_Answer")

_CHUNK = 1024 * 1024
_CHECK_SECONDS = 3
WRITE_SECONDS = 5
_LIST_SECONDS = 15
_PASSING = (AwayError, StreamError, OSError)
"""Trouble of the network or the store: reading is tried again after it."""
_CONNECTIONS = 32
_ATTEMPTS = 2
"""Attempts of the S3 client itself; this module tries reads again on top of them."""


class Bucket:
    """The one S3 client of the process; use as an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._s3: Any = None

    async def __aenter__(self) -> "Bucket":
        client = s3.connected(self._settings, connections=_CONNECTIONS, attempts=_ATTEMPTS)
        self._s3 = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def fetch(self, key: str, path: Path, limit: int) -> str:
        """Write the object to `path`, a chunk at a time, and return its ETag.

        Raises StorageError. While the store is away, this and all other reads are tried again for `STORAGE_SECONDS`.
        """
        return await self._patiently(self._fetch, key, path, limit)

    async def look(self, key: str, limit: int) -> str:
        """Return the ETag of an object of at most `limit` bytes."""
        return await self._patiently(self._look, key, limit)

    async def read(self, key: str, limit: int) -> bytes:
        """Return an object of at most `limit` bytes."""
        return await self._patiently(self._read, key, limit)

    async def write(self, key: str, content: bytes) -> None:
        """Write a small object; raises StorageError, after a few seconds at most."""
        with _told():
            async with asyncio.timeout(WRITE_SECONDS):
                await self._s3.put_object(Bucket=self._settings.s3_bucket_name, Key=key, Body=content)

    async def read_now(self, key: str, limit: int) -> bytes:
        """Return an object of at most `limit` bytes; raises StorageError, after a few seconds at most."""
        with _told():
            async with asyncio.timeout(WRITE_SECONDS):
                return await self._read(key, limit)

    async def remove(self, key: str) -> None:
        """Delete an object, if it is there; raises StorageError, after a few seconds at most."""
        try:
            with _told():
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._s3.delete_object(Bucket=self._settings.s3_bucket_name, Key=key)
        except StorageError as error:
            if error.fault != "missing":
                raise

    async def listed(self, prefix: str) -> dict[str, str]:
        """Return the version of each object under a prefix, which every write changes, the latest written last.

        Raises StorageError, after a few seconds at most.
        """
        found: list[dict[str, Any]] = []
        with _told():
            async with asyncio.timeout(_LIST_SECONDS):
                pages = self._s3.get_paginator("list_objects_v2")
                async for page in pages.paginate(Bucket=self._settings.s3_bucket_name, Prefix=prefix):
                    found += page.get("Contents", [])
        found.sort(key=lambda entry: entry["LastModified"])
        return {entry["Key"]: f"{entry['ETag']} {entry['LastModified'].isoformat()}" for entry in found}

    async def is_reachable(self) -> bool:
        """Tell whether the bucket answers. 403 is an answer too: a key that may only read objects gets it."""
        try:
            with translating():
                async with asyncio.timeout(_CHECK_SECONDS):
                    await self._s3.head_bucket(Bucket=self._settings.s3_bucket_name)
        except s3.ForbiddenError:
            return True
        except (BackEndError, ObjectMissingError):
            return False
        return True

    async def _patiently(self, call: Callable[..., Awaitable[_Answer]], *asked: Any) -> _Answer:
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(_PASSING),
            stop=stop_after_delay(self._settings.storage_seconds),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            reraise=True,
        )
        with _told():
            return await attempts(self._translated, call, *asked)

    async def _translated(self, call: Callable[..., Awaitable[_Answer]], *asked: Any) -> _Answer:
        with translating():
            return await call(*asked)

    async def _fetch(self, key: str, path: Path, limit: int) -> str:
        async with self._opened(key, limit) as (body, etag):
            with path.open("wb") as file:
                # The HTTP client enforces the declared length: less is an error, more is not read.
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
    """Translate the errors of S3 into StorageError, whose fault says why."""
    try:
        with translating():
            yield
    except (ObjectMissingError, s3.BucketMissingError) as error:
        raise StorageError("missing") from error
    except s3.ForbiddenError as error:
        raise StorageError("forbidden") from error
    except (BackEndError, *_PASSING) as error:
        raise StorageError("unavailable") from error


def _etag(answer: dict[str, Any], limit: int) -> str:
    if answer["ContentLength"] > limit:
        raise StorageError("too_large")
    return str(answer["ETag"])
