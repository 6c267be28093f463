"""S3's hot path: objects are written, read and described by obstore, which takes a fifth of aioboto3's CPU.

obstore does what it can, and aioboto3 has the last word: a call that fails is made again through aioboto3, which tries
it as often as it does any call and knows what the store's errors mean. So this path needs no retries and no errors of
its own. After some failures in a row obstore rests, and the store is served as slowly as aioboto3 can.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aioboto3
import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import S3Store

from chassis import s3
from chassis.errors import AwayError
from chassis.s3 import CONNECT_SECONDS, READ_SECONDS, translating
from chassis.settings import BucketSettings

if TYPE_CHECKING:
    from obstore import GetResult  # exists for type checkers alone

log = structlog.get_logger()

FAILURES_IN_A_ROW = 3
REST_SECONDS = 60.0
"""For how long obstore is not asked once it has failed so often where aioboto3 did not. After that one more failure has
it rest again: at a store that refuses it, hardly any call is made twice.
"""
_IDLE_SECONDS = 15
"""An idle connection is closed then, before the store closes it under a request."""
_CREDENTIALS_MINUTES = 10
"""How long the keys are good for: botocore renews those that expire before they have less. obstore asks for them anew
five minutes before that.
"""
_HOST_NAME = re.compile(r"[a-z0-9][-a-z0-9]{1,61}[a-z0-9]")
_NO_SEGMENTS = {"", ".", ".."}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Described:
    """What the store says of an object. `size_bytes` is what it gives of it; the metadata's names are in lower case."""

    size_bytes: int
    content_type: str
    etag: str
    metadata: Mapping[str, str]


Opened = tuple[Described, AsyncIterator[bytes]]


class Objects:
    """The objects of a bucket. Without a `store` every call is aioboto3's.

    Every method raises ObjectMissingError, AwayError, or BackEndError for what can never succeed.
    """

    def __init__(self, client: Any, bucket: str, store: S3Store | None = None) -> None:
        self._client = client
        self._bucket = bucket
        self._store = store
        self._failures = 0
        self._rests_until = 0.0

    async def put(self, key: str, content: bytes, content_type: str, metadata: Mapping[str, str] | None = None) -> None:
        """Write an object in one request."""
        described = dict(metadata or {})

        async def quick(store: S3Store) -> None:
            attributes = {**described, "Content-Type": content_type}
            await obstore.put_async(store, key, content, attributes=attributes, use_multipart=False)

        async def exact() -> None:
            await self._client.put_object(
                Bucket=self._bucket, Key=key, Body=content, ContentType=content_type, Metadata=described
            )

        await self._asked(key, quick, exact)

    async def head(self, key: str) -> Described:
        """Return what the store says of an object."""

        async def quick(store: S3Store) -> Described:
            return _described(await obstore.get_async(store, key, options={"head": True}))

        async def exact() -> Described:
            return _described_exactly(await self._client.head_object(Bucket=self._bucket, Key=key))

        return await self._asked(key, quick, exact)

    @asynccontextmanager
    async def opened(
        self, key: str, chunk_bytes: int, *, etag: str | None = None, part: tuple[int, int] | None = None
    ) -> AsyncIterator[Opened]:
        """Open an object, or its bytes from the first to the last of `part`, and yield its chunks.

        With an `etag` the object is missing when it has another one. A chunk that fails raises AwayError, or
        aiobotocore's error.
        """
        last = {} if part is None else {"range": (part[0], part[1] + 1)}
        options: Any = {**last, **({} if etag is None else {"if_match": etag})}
        asked: dict[str, str] = {} if part is None else {"Range": f"bytes={part[0]}-{part[1]}"}
        asked |= {} if etag is None else {"IfMatch": etag}

        async def quick(store: S3Store) -> AbstractAsyncContextManager[Opened]:
            return _quick_body(await obstore.get_async(store, key, options=options), chunk_bytes)

        async def exact() -> AbstractAsyncContextManager[Opened]:
            return _exact_body(await self._client.get_object(Bucket=self._bucket, Key=key, **asked), chunk_bytes)

        async with await self._asked(key, quick, exact) as opened:
            yield opened

    async def _asked(
        self, key: str, quick: Callable[[S3Store], Awaitable[_Answer]], exact: Callable[[], Awaitable[_Answer]]
    ) -> _Answer:
        """Return obstore's answer or, when it has none, aioboto3's."""
        failed: Exception | None = None
        if self._store is not None and time.monotonic() >= self._rests_until and _is_plain(key):
            try:
                answer = await quick(self._store)
            except asyncio.CancelledError as error:  # perhaps at the caller's limit, while aioboto3 would have answered
                self._count(error)
                raise
            except Exception as error:  # noqa: BLE001 - aioboto3 does it, or says what is wrong
                failed = error
            else:
                self._failures = 0
                return answer
        try:
            with translating():
                answer = await exact()
        except asyncio.CancelledError:
            if failed is not None:
                self._count(failed)
            raise
        if failed is not None:
            self._count(failed)
        return answer

    def _count(self, failure: BaseException) -> None:
        """Count a call that obstore did not do; after some in a row it is not asked for a while."""
        self._failures += 1
        if self._failures >= FAILURES_IN_A_ROW:
            self._rests_until = time.monotonic() + REST_SECONDS
            log.warning("S3 is asked the slow way for a while", reason=type(failure).__name__)


@dataclass(frozen=True)
class Connection:
    """One process's way to a bucket: aioboto3's client, and the objects by the quicker way."""

    client: Any
    objects: Objects


@asynccontextmanager
async def connected(settings: BucketSettings, *, connections: int, attempts: int) -> AsyncIterator[Connection]:
    """Yield the process's one connection; the arguments are those of `s3.connected`, whose keys both ways use."""
    session = s3.session(settings)
    async with s3.client(session, settings, connections=connections, attempts=attempts) as client:
        store = _store(settings, session, client.meta.endpoint_url)
        yield Connection(client, Objects(client, settings.s3_bucket_name, store))


def _store(settings: BucketSettings, session: aioboto3.Session, endpoint: str) -> S3Store:
    """Return the bucket at the endpoint, by virtual host or by path as aioboto3 addresses it."""
    bucket, address = settings.s3_bucket_name, urlsplit(endpoint)
    by_host = settings.s3_endpoint_url is None and _HOST_NAME.fullmatch(bucket) is not None
    if by_host:
        address = address._replace(netloc=f"{bucket}.{address.netloc}")
    return S3Store(
        bucket,
        # obstore reads variables too, and these must not lead it elsewhere: of the two for an endpoint this one wins.
        aws_endpoint_url_s3=address.geturl(),
        region=settings.aws_region,
        virtual_hosted_style_request=by_host,
        skip_signature=False,
        unsigned_payload=False,
        credential_provider=_credentials(session),
        client_options={
            "allow_http": address.scheme == "http",
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=READ_SECONDS),
            # Of a whole answer: a long recording may be read slowly, as long as its bytes keep coming.
            "timeout": timedelta(days=1),
            "pool_idle_timeout": timedelta(seconds=_IDLE_SECONDS),
        },
        retry_config={"max_retries": 0},
    )


def _credentials(session: aioboto3.Session) -> Callable[[], Any]:
    """Return what gives obstore the session's keys, wherever the session has them from."""

    async def current() -> dict[str, Any]:
        keys = await (await session.get_credentials()).get_frozen_credentials()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=_CREDENTIALS_MINUTES),
        }

    return current


def _is_plain(key: str) -> bool:
    """Tell whether obstore leaves the key as it is: it takes no empty segments, and drops slashes at either end."""
    return _NO_SEGMENTS.isdisjoint(key.split("/"))


@asynccontextmanager
async def _quick_body(answer: "GetResult", chunk_bytes: int) -> AsyncIterator[Opened]:
    async with aclosing(_quick_chunks(answer, chunk_bytes)) as chunks:
        yield _described(answer), chunks


async def _quick_chunks(answer: "GetResult", chunk_bytes: int) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.stream(min_chunk_size=chunk_bytes):
            yield chunk
    except BaseError as error:
        raise AwayError("S3", type(error).__name__) from error


@asynccontextmanager
async def _exact_body(answer: dict[str, Any], chunk_bytes: int) -> AsyncIterator[Opened]:
    body = answer["Body"]
    async with body:  # no `as`: that would be the HTTP response below, which has no `iter_chunks`
        yield _described_exactly(answer), body.iter_chunks(chunk_bytes)


def _described(answer: "GetResult") -> Described:
    first, end = answer.range
    metadata = {name.lower(): value for name, value in answer.attributes.items()}
    return Described(end - first, metadata.pop("content-type", ""), answer.meta["e_tag"] or "", metadata)


def _described_exactly(answer: Mapping[str, Any]) -> Described:
    # Some stores give the names back with capitals.
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    return Described(answer["ContentLength"], answer.get("ContentType", ""), answer.get("ETag", ""), metadata)
