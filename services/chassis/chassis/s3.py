"""S3: the client, how long it waits and how often it tries, what its errors mean, and how objects are deleted.

The client speaks to any store that knows S3: it sends nothing that only AWS understands.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import aioboto3
import structlog
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.handlers import add_expect_header
from pydantic import SecretStr

from chassis.errors import AwayError, BackEndError, ObjectMissingError, reason_of
from chassis.settings import BucketSettings

log = structlog.get_logger()

CONNECT_SECONDS = 5
READ_SECONDS = 30
DELETES_AT_ONCE = 16
"""How many single deletes are under way at the same time."""
_MISSING = {"NoSuchKey", "NotFound", "404", "PreconditionFailed", "412"}
_NOTHING_TO_DELETE = {"NoSuchKey", "NotFound", "404"}
"""What some stores say of an object that is not there; AWS says that it was deleted."""
_FORBIDDEN = 403
_UNSUPPORTED = {405, 501}
_OVERLOADED = {429, 503}
_SERVER_ERROR = 500


class ForbiddenError(BackEndError):
    """The key in use may not do this."""


class BucketMissingError(BackEndError):
    """There is no such bucket."""


class UnsupportedError(BackEndError):
    """The store does not know this call."""


class DeletionError(BackEndError):
    """S3 answered, but did not delete every object; `keys` are those that stay."""

    def __init__(self, reason: str, keys: Sequence[str]) -> None:
        super().__init__("S3", reason)
        self.keys = keys


def session(settings: BucketSettings) -> aioboto3.Session:
    """Return what knows the keys: those of the settings, or else what the AWS SDK finds."""
    return aioboto3.Session(
        aws_access_key_id=_value(settings.aws_access_key_id),
        aws_secret_access_key=_value(settings.aws_secret_access_key),
        region_name=settings.aws_region,
    )


def connected(settings: BucketSettings, *, connections: int, attempts: int) -> AbstractAsyncContextManager[Any]:
    """Open the process's one client: at most `connections` connections, and at most `attempts` tries of a call."""
    return client(session(settings), settings, connections=connections, attempts=attempts)


@asynccontextmanager
async def client(
    session: aioboto3.Session, settings: BucketSettings, *, connections: int, attempts: int
) -> AsyncIterator[Any]:
    """Yield a client of the session; the other arguments are those of `connected`."""
    config = AioConfig(
        signature_version="s3v4",
        max_pool_connections=connections,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with session.client("s3", endpoint_url=settings.s3_endpoint_url, config=config) as opened:
        # A store, or a proxy before it, that does not know `Expect: 100-continue` would wait for the body, and we for
        # its leave.
        opened.meta.events.unregister("before-call.s3", add_expect_header)
        opened.meta.events.register("before-call.s3.DeleteObjects", _with_content_md5)
        yield opened


@contextmanager
def translating() -> Iterator[None]:
    """Turn the client's errors into ObjectMissingError, AwayError, or BackEndError for what can never succeed."""
    try:
        yield
    except ClientError as error:
        raise _translated(error) from error
    except ParamValidationError as error:
        raise BackEndError("S3", type(error).__name__) from error
    except (BotoCoreError, TimeoutError, ConnectionError) as error:
        raise AwayError("S3", type(error).__name__) from error


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Limit a call, with its repeats, to some seconds, and translate its errors."""
    with translating():
        async with asyncio.timeout(seconds):
            yield


@asynccontextmanager
async def asking_for_none(seconds: float) -> AsyncIterator[None]:
    """Do the same for a call that asks for no object: when it is told that there is none, S3 itself did not answer."""
    try:
        async with bounded(seconds):
            yield
    except ObjectMissingError as error:
        raise BackEndError("S3", reason_of(error)) from error.__cause__


class Deletions:
    """Deletes objects of one bucket: many in one call, or one by one where the store refuses that call.

    Stores refuse it with many codes (NotImplemented, MethodNotAllowed, InvalidArgument, MissingContentMD5, …), so any
    refusal has the objects deleted one by one. What those calls answer counts.
    """

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket
        self._one_by_one = False

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete up to 1,000 objects, whether they are there or not; DeletionError when some of them stay."""
        if not keys:
            return
        with translating():
            kept = await (self._each(keys) if self._one_by_one else self._all(keys))
        if kept:
            raise DeletionError(next(iter(kept.values())), list(kept))

    async def _all(self, keys: Sequence[str]) -> dict[str, str]:
        """Delete in one call, or else one by one; return the store's code for each object that stays."""
        objects = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        try:
            answer = await self._client.delete_objects(Bucket=self._bucket, Delete=objects)
        except ClientError as error:
            if _status(error) in _OVERLOADED:
                raise
            kept = await self._each(keys)
            if len(kept) < len(keys) and not _may_pass(error):
                log.warning("S3 refuses to delete many objects in one call", reason=_code(error))
                self._one_by_one = True
            return kept
        codes = {found["Key"]: found.get("Code", "") for found in answer.get("Errors", [])}
        return {key: code for key, code in codes.items() if code not in _NOTHING_TO_DELETE}

    async def _each(self, keys: Sequence[str]) -> dict[str, str]:
        kept: dict[str, str] = {}
        for first in range(0, len(keys), DELETES_AT_ONCE):
            some = keys[first : first + DELETES_AT_ONCE]
            answers = await asyncio.gather(*map(self._one, some), return_exceptions=True)
            for key, answer in zip(some, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                if answer is not None:
                    kept[key] = answer
        return kept

    async def _one(self, key: str) -> str | None:
        """Delete an object; return the store's code when it refuses."""
        try:
            await self._client.delete_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if _may_pass(error):
                raise
            return None if _code(error) in _NOTHING_TO_DELETE else _code(error)
        return None


def _with_content_md5(params: dict[str, Any], **_: object) -> None:
    """Have DeleteObjects carry Content-MD5, which every store takes, in place of CRC32, which only newer ones take."""
    params["context"].pop("checksum", None)
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _value(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _status(error: ClientError) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def _code(error: ClientError) -> str:
    """Return S3's code; the status as text when the answer had none."""
    return error.response.get("Error", {}).get("Code", "") or str(_status(error))


def _may_pass(error: ClientError) -> bool:
    """Tell whether S3 itself is full, overloaded or broken; the request is not at fault then."""
    status = _status(error)
    return status in _OVERLOADED or (status >= _SERVER_ERROR and status not in _UNSUPPORTED)


def _translated(error: ClientError) -> Exception:
    code = _code(error)
    if code in _MISSING:
        return ObjectMissingError(code)
    if _may_pass(error):
        return AwayError("S3", code)
    if code == "NoSuchBucket":
        return BucketMissingError("S3", code)
    if _status(error) in _UNSUPPORTED:
        return UnsupportedError("S3", code)
    refusal = ForbiddenError if _status(error) == _FORBIDDEN else BackEndError
    return refusal("S3", code)
