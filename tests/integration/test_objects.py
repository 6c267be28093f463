"""S3's hot path: what obstore does is asked once, and what it does not do is as if it were not there."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from chassis import objects, s3
from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.objects import FAILURES_IN_A_ROW, REST_SECONDS, Connection, Described, Objects
from chassis.s3 import BucketMissingError, ForbiddenError
from chassis.settings import BucketSettings
from tests.support.ports import free_port
from tests.support.proxy import Proxies
from tests.support.strict_s3 import BUCKET, KEYS, Stored, StrictS3, answering
from tests.support.waiting import until, until_true

CONTENT = b"sound of a recording"
METADATA = {"sha256": "ab" * 32, "sample-rate": "16000"}
ATTEMPTS = 2
OBSTORE, AIOBOTO3 = "object_store/", "aiobotocore/"
EVERYTHING = ["PUT", "HEAD", "GET", "GET"]


@pytest.fixture
def store() -> Iterator[StrictS3]:
    with StrictS3().running() as running:
        yield running


class Clock:
    """The clock by which obstore rests."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(objects, "time", clock)
    return clock


@asynccontextmanager
async def connected(**given: Any) -> AsyncIterator[Connection]:
    settings = BucketSettings.model_validate({name.lower(): value for name, value in given.items()})
    async with objects.connected(settings, connections=8, attempts=ATTEMPTS) as connection:
        yield connection


@pytest.fixture
async def both(store: StrictS3) -> AsyncIterator[Objects]:
    async with connected(**store.settings) as connection:
        yield connection.objects


async def read(found: Objects, key: str, **asked: Any) -> tuple[Described, bytes]:
    async with found.opened(key, 7, **asked) as (described, chunks):
        return described, b"".join([chunk async for chunk in chunks])


async def everything(found: Objects) -> tuple[Described, Described, bytes, Described, bytes]:
    """Write an object and have it back in every way."""
    await found.put("inbox/a", CONTENT, "audio/wav", METADATA)
    head = await found.head("inbox/a")
    return head, *await read(found, "inbox/a"), *await read(found, "inbox/a", etag=head.etag, part=(3, 6))


def asked_by(store: StrictS3, agent: str) -> list[str]:
    """The methods of a driver's requests, in order."""
    return [line.split()[0] for line, said in zip(store.asked, store.agents, strict=True) if agent in said]


async def test_both_drivers_say_the_same_and_obstore_is_asked_once(store: StrictS3, both: Objects) -> None:
    quick = await everything(both)
    assert (asked_by(store, OBSTORE), asked_by(store, AIOBOTO3)) == (EVERYTHING, [])
    async with connected(**store.settings) as connection:
        exact = await everything(Objects(connection.client, BUCKET))
    assert asked_by(store, AIOBOTO3) == EVERYTHING
    whole = Described(len(CONTENT), "audio/wav", ANY, METADATA)
    part = Described(4, "audio/wav", ANY, METADATA)
    assert quick == exact == (whole, whole, CONTENT, part, CONTENT[3:7])


async def test_a_store_that_refuses_obstore_is_not_asked_twice_each_time(
    store: StrictS3, both: Objects, clock: Clock
) -> None:
    store.refused_agent = OBSTORE
    for _ in range(3):
        await everything(both)
    assert (asked_by(store, OBSTORE), asked_by(store, AIOBOTO3)) == (EVERYTHING[:FAILURES_IN_A_ROW], 3 * EVERYTHING)
    store.asked.clear()
    store.agents.clear()
    clock.seconds += REST_SECONDS
    await everything(both)
    assert asked_by(store, OBSTORE) == ["PUT"]
    store.refused_agent = None
    clock.seconds += REST_SECONDS
    await everything(both)
    assert asked_by(store, OBSTORE) == ["PUT", *EVERYTHING]


async def test_a_store_that_fails_now_and_then_is_asked_the_quick_way_again(store: StrictS3, both: Objects) -> None:
    for _ in range(FAILURES_IN_A_ROW):
        store.refused_agent = OBSTORE
        await both.put("a", CONTENT, "audio/wav")
        store.refused_agent = None
        await both.head("a")
    assert asked_by(store, OBSTORE) == FAILURES_IN_A_ROW * ["PUT", "HEAD"]
    assert asked_by(store, AIOBOTO3) == FAILURES_IN_A_ROW * ["PUT"]


async def test_what_is_missing_or_replaced_is_so_by_either_way_and_rests_nothing(
    store: StrictS3, both: Objects
) -> None:
    store.objects["a"] = Stored(CONTENT, "audio/wav", {})
    for call in (both.head("b"), read(both, "b"), read(both, "a", etag='"another"')):
        with pytest.raises(ObjectMissingError):
            await call
    await both.head("a")
    assert asked_by(store, OBSTORE) == ["HEAD", "GET", "GET", "HEAD"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"S3_BUCKET_NAME": "another"}, BucketMissingError), ({"AWS_SECRET_ACCESS_KEY": "wrong"}, ForbiddenError)],
    ids=["no such bucket", "a wrong key"],
)
async def test_a_refusal_is_told_as_aioboto3_knows_it(
    store: StrictS3, wrong: dict[str, str], error: type[BackEndError]
) -> None:
    async with connected(**{**store.settings, **wrong}) as connection:
        for call in (connection.objects.put("a", CONTENT, "audio/wav"), read(connection.objects, "a")):
            with pytest.raises(error):
                await call


@pytest.mark.parametrize("key", ["/a", "a/", "a//b", "a/./b", "a/../b"])
async def test_a_key_that_obstore_would_change_is_none_of_its_business(
    store: StrictS3, both: Objects, key: str
) -> None:
    store.objects |= {"a": Stored(b"another object", "audio/wav", {}), key: Stored(CONTENT, "audio/wav", {})}
    assert (await read(both, key))[1] == CONTENT
    assert asked_by(store, OBSTORE) == []


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer within half a second is none."""
    monkeypatch.setattr(objects, "READ_SECONDS", 0.5)
    monkeypatch.setattr(s3, "READ_SECONDS", 0.5)


@pytest.mark.usefixtures("hurried")
async def test_a_store_that_says_nothing_or_is_not_there_is_away(store: StrictS3) -> None:
    with Proxies.running() as proxies:
        proxy = proxies.to("s3", store.port)
        async with connected(**{**store.settings, "S3_ENDPOINT_URL": proxy.through(store.url)}) as connection:
            await everything(connection.objects)
            for trouble in (proxy.swallow, proxy.refuse):
                trouble()
                for call in (connection.objects.put("a", CONTENT, "audio/wav"), read(connection.objects, "inbox/a")):
                    began = time.monotonic()
                    with pytest.raises(AwayError):
                        await call
                    # One try of obstore's and those of aioboto3, with its pauses between them.
                    assert time.monotonic() - began < 0.5 * (1 + ATTEMPTS) + 3
            proxy.heal()
            await everything(connection.objects)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("trouble", ["refuse", "swallow"])
async def test_a_body_that_breaks_off_or_stops_is_no_object(store: StrictS3, trouble: str) -> None:
    store.objects["a"] = Stored(bytes(64 * 1024 * 1024), "audio/wav", {})
    with Proxies.running() as proxies:
        proxy = proxies.to("s3", store.port)
        through = {**store.settings, "S3_ENDPOINT_URL": proxy.through(store.url)}
        async with connected(**through) as connection, connection.objects.opened("a", 1024) as (_, chunks):
            assert await anext(chunks)
            getattr(proxy, trouble)()
            with pytest.raises(AwayError):
                _ = [chunk async for chunk in chunks]
    assert asked_by(store, OBSTORE) == ["GET"]


async def test_a_reader_that_goes_gives_its_connection_back(store: StrictS3) -> None:
    store.objects["a"] = Stored(bytes(64 * 1024 * 1024), "audio/wav", {})
    with Proxies.running() as proxies:
        proxy = proxies.to("s3", store.port)
        async with connected(**{**store.settings, "S3_ENDPOINT_URL": proxy.through(store.url)}) as connection:
            async with connection.objects.opened("a", 1024) as (_, chunks):
                assert await anext(chunks)
                assert proxy.open_connections == 1
            await until_true(lambda: not proxy.open_connections, "the connection's end")


async def test_what_only_obstore_reads_from_the_environment_leads_it_nowhere(
    store: StrictS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_BUCKET": "another",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_UNSIGNED_PAYLOAD": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_SESSION_TOKEN": "of other keys",
        "AWS_REGION": "eu-west-3",
        "AWS_ALLOW_HTTP": "false",
    }.items():
        monkeypatch.setenv(name, value)
    async with connected(**store.settings) as connection:
        await everything(connection.objects)
    assert (asked_by(store, OBSTORE), store.refused) == (EVERYTHING, [])


def stopped(request: Any, **_: Any) -> None:
    """Tell where a request of aioboto3 goes, before it goes there."""
    raise ConnectionAbortedError(request.url)


@pytest.mark.parametrize(
    ("bucket", "given", "endpoint", "by_host"),
    [
        ("sori", {}, "https://sori.s3.eu-west-3.amazonaws.com", True),
        ("so.ri", {}, "https://s3.eu-west-3.amazonaws.com", False),
        ("sori", {"AWS_REGION": "cn-north-1"}, "https://sori.s3.cn-north-1.amazonaws.com.cn", True),
        ("sori", {"S3_ENDPOINT_URL": "https://minio.example:9000"}, "https://minio.example:9000", False),
    ],
)
async def test_the_bucket_is_addressed_as_aioboto3_does(
    bucket: str, given: dict[str, str], endpoint: str, by_host: bool
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_REGION": "eu-west-3"}
    settings = {"S3_BUCKET_NAME": bucket, **keys, **given}
    async with connected(**settings) as connection:
        store: Any = connection.objects._store  # nobody can be asked at such an address
        assert store.config["endpoint_url_s3"] == endpoint
        assert store.config["virtual_hosted_style_request"] == str(by_host).lower()
        connection.client.meta.events.register("request-created.s3", stopped)
        with pytest.raises(ConnectionAbortedError, match=f"^{endpoint}/a$" if by_host else f"^{endpoint}/{bucket}/a$"):
            await connection.client.head_object(Bucket=bucket, Key="a")


async def test_keys_that_the_sdk_finds_are_used_with_their_session_token(
    store: StrictS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store.session_tokens = {"a-token"}
    profile = tmp_path / "credentials"
    profile.write_text(
        f"[default]\naws_access_key_id={KEYS[0]}\naws_secret_access_key={KEYS[1]}\naws_session_token=a-token\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    async with connected(**_without_keys(store)) as connection:
        await everything(connection.objects)
    assert (asked_by(store, OBSTORE), store.refused) == (EVERYTHING, [])


async def test_keys_that_expire_are_renewed(store: StrictS3, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an instance, a container or a pod gets them: from an address, for some minutes."""
    tokens, given = ["first"], [""]
    store.session_tokens = {"first"}

    async def credentials(scope: Scope, receive: Receive, send: Send) -> None:
        given.append(tokens[-1])
        # Good for less than botocore wants: it asks again whenever it is asked.
        expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        keys = {"AccessKeyId": KEYS[0], "SecretAccessKey": KEYS[1], "Token": tokens[-1], "Expiration": expires}
        await JSONResponse(keys)(scope, receive, send)

    monkeypatch.setattr(objects, "_CREDENTIALS_MINUTES", 5)  # obstore then asks for them several times a second
    port = free_port()
    with answering(credentials, port):
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}")
        async with connected(**_without_keys(store)) as connection:
            await everything(connection.objects)
            tokens.append("second")
            store.session_tokens.add("second")

            async def renewed() -> bool:
                await connection.objects.head("inbox/a")
                return given[-1] == "second"

            await until(renewed, "the second token")
            store.session_tokens.remove("first")
            await everything(connection.objects)
    assert (asked_by(store, AIOBOTO3), store.refused) == ([], [])


def _without_keys(store: StrictS3) -> dict[str, str]:
    return {name: value for name, value in store.settings.items() if "KEY" not in name}
