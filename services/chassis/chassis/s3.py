"""S3: the client, how long it waits and how often it tries, and what its errors mean."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from pydantic import SecretStr

from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.settings import BucketSettings

CONNECT_SECONDS = 5
READ_SECONDS = 30
_MISSING = {"NoSuchKey", "NotFound", "404", "PreconditionFailed", "412"}
_FORBIDDEN = 403
_SERVER_ERROR = 500


class ForbiddenError(BackEndError):
    """The key in use may not do this."""


class BucketMissingError(BackEndError):
    """There is no such bucket."""


@asynccontextmanager
async def connected(settings: BucketSettings, *, connections: int, attempts: int) -> AsyncIterator[Any]:
    """Yield the process's one client: at most `connections` connections, and at most `attempts` tries of a call."""
    session = aioboto3.Session(
        aws_access_key_id=_value(settings.aws_access_key_id),
        aws_secret_access_key=_value(settings.aws_secret_access_key),
        region_name=settings.aws_region,
    )
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
    async with session.client("s3", endpoint_url=settings.s3_endpoint_url, config=config) as client:
        yield client


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


def _value(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _translated(error: ClientError) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _MISSING:
        return ObjectMissingError(code)
    if status >= _SERVER_ERROR:
        # S3 itself is full, overloaded or broken; the request is not at fault.
        return AwayError("S3", code or str(status))
    if code == "NoSuchBucket":
        return BucketMissingError("S3", type(error).__name__)
    refusal = ForbiddenError if status == _FORBIDDEN else BackEndError
    return refusal("S3", type(error).__name__)
