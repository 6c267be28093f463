"""What a driver's error means: whether its back end is away, refuses, or has no such thing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError
from pymongo import errors as pymongo_errors

from chassis import mongodb, s3
from chassis.errors import AwayError, BackEndError, ObjectMissingError, reason_of


def answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")


def translated(translating: Callable[[], AbstractContextManager[None]], error: Exception) -> Any:
    with pytest.raises((BackEndError, ObjectMissingError)) as told, translating():
        raise error
    assert told.value.__cause__ is error
    return told.value


def named(value: object) -> str:
    return value if isinstance(value, str) else ""


S3 = [
    (answer("NoSuchKey", 404), ObjectMissingError, "object_missing: NoSuchKey"),
    (answer("404", 404), ObjectMissingError, "object_missing: 404"),
    (answer("PreconditionFailed", 412), ObjectMissingError, "object_missing: PreconditionFailed"),
    (answer("NoSuchBucket", 404), s3.BucketMissingError, "NoSuchBucket"),
    (answer("AccessDenied", 403), s3.ForbiddenError, "AccessDenied"),
    (answer("InvalidRequest", 400), BackEndError, "InvalidRequest"),
    (answer("NotImplemented", 501), s3.UnsupportedError, "NotImplemented"),
    (answer("", 405), s3.UnsupportedError, "405"),
    (answer("SlowDown", 503), AwayError, "away: S3: SlowDown"),
    (answer("", 500), AwayError, "away: S3: 500"),
    (ParamValidationError(report="no key"), BackEndError, "ParamValidationError"),
    (EndpointConnectionError(endpoint_url="http://s3"), AwayError, "away: S3: EndpointConnectionError"),
    (TimeoutError(), AwayError, "away: S3: TimeoutError"),
    (ConnectionResetError(), AwayError, "away: S3: ConnectionResetError"),
]


@pytest.mark.parametrize(("error", "kind", "reason"), S3, ids=named)
def test_what_s3_answers(error: Exception, kind: type[Exception], reason: str) -> None:
    told = translated(s3.translating, error)
    assert type(told) is kind
    assert reason_of(told) == reason


MONGODB = [
    (pymongo_errors.AutoReconnect("gone"), AwayError, "away: MongoDB: AutoReconnect"),
    (pymongo_errors.ServerSelectionTimeoutError("none"), AwayError, "away: MongoDB: ServerSelectionTimeoutError"),
    (pymongo_errors.NetworkTimeout("slow"), AwayError, "away: MongoDB: NetworkTimeout"),
    (pymongo_errors.ExecutionTimeout("slow", 50), AwayError, "away: MongoDB: ExecutionTimeout"),
    (pymongo_errors.OperationFailure("bad question", 2), BackEndError, "OperationFailure"),
    (pymongo_errors.InvalidOperation("no"), BackEndError, "InvalidOperation"),
]


@pytest.mark.parametrize(
    ("error", "kind", "reason"), MONGODB, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_mongodb_answers(error: Exception, kind: type[Exception], reason: str) -> None:
    told = translated(mongodb.translating, error)
    assert type(told) is kind
    assert reason_of(told) == reason


def test_what_is_no_back_ends_error_passes() -> None:
    for translating in (s3.translating, mongodb.translating):
        with pytest.raises(ValueError, match="mine"), translating():
            raise ValueError("mine")


def test_a_strangers_text_is_told_to_nobody() -> None:
    assert reason_of(ValueError("somebody's secret")) == "ValueError"
