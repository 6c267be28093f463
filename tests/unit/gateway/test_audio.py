"""Giving recordings out: only so many at once, each counted from its check to its end, whatever end that is."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message
from structlog.testing import capture_logs

from chassis.audit import Audit
from chassis.clients import Clients, Proxies
from chassis.errors import BackEndError
from chassis.identity.caller import ANYBODY
from chassis.plain_http import TAKE_OVER
from gateway import storage
from gateway.audio import AudioGoneError, StoredAudio
from gateway.availability import Availability
from gateway.jobs import audio
from gateway.jobs.routes import JobParts
from gateway.jobs.visible import VisibleJobs
from gateway.web import pace
from gateway.web.callers import read_caller
from gateway.web.parts import give
from gateway.web.problems import handle_errors
from gateway.web.slots import MAX_READERS, Slots
from tests.support.gateway_stores import Jobs
from tests.support.waiting import until_true
from tests.unit.stories import JOB_ID, new_job

BODY = b"sound"


class Bucket:
    """S3 with one recording; readers wait until `going` is set, and opening one fails with `error`."""

    def __init__(self) -> None:
        self.asked = self.open = 0
        self.going = asyncio.Event()
        self.error: Exception | None = None

    async def find_audio(self, job_id: str) -> StoredAudio:
        return StoredAudio(f"audio/{job_id}.wav", len(BODY), "audio/wav", '"1"')

    @asynccontextmanager
    async def read(self, *_: object) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked += 1
        await asyncio.sleep(0)  # S3 takes its time
        if self.error:
            raise self.error
        self.open += 1
        try:
            yield self._chunks()
        finally:
            self.open -= 1

    async def _chunks(self) -> AsyncIterator[bytes]:
        await self.going.wait()
        yield BODY


async def up() -> bool:
    return True


def scope_of(spec: str) -> dict[str, Any]:
    """A request for the recording, as a server of this version of ASGI tells it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "http_version": "1.1",
        "method": "GET",
        "path": f"/jobs/{JOB_ID}/audio",
        "raw_path": f"/jobs/{JOB_ID}/audio".encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": ("127.0.0.1", 50_000),
    }


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def app(bucket: Bucket) -> FastAPI:
    made = FastAPI()
    back_ends = Availability({"S3": up, "MongoDB": up})
    jobs = Jobs(new_job())
    visible = VisibleJobs(jobs, cast(Audit, None))
    parts = JobParts(jobs, visible, cast("storage.Bucket", bucket), lambda: None, back_ends, Slots(MAX_READERS))
    give(made, parts)
    made.add_middleware(Clients, proxies=Proxies([ip_network("127.0.0.1")]))
    made.dependency_overrides[read_caller] = lambda: ANYBODY
    made.include_router(audio.router)
    handle_errors(made)
    return made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as made:
        yield made


def asking(client: httpx.AsyncClient, count: int, address: str = "198.51.100.{}") -> list[asyncio.Task[httpx.Response]]:
    """Ask so many times at once, each from another address unless they are given one."""
    return [
        asyncio.create_task(client.get(f"/jobs/{JOB_ID}/audio", headers={"X-Forwarded-For": address.format(number)}))
        for number in range(count)
    ]


async def statuses(client: httpx.AsyncClient, count: int) -> list[int]:
    """What those get that ask."""
    return await ended(asking(client, count))


async def ended(asked: list[asyncio.Task[httpx.Response]]) -> list[int]:
    """What these get."""
    answers = await asyncio.gather(*asked)
    return [answer.status_code for answer in answers]


async def assert_all_slots_free(client: httpx.AsyncClient, bucket: Bucket) -> None:
    assert bucket.open == 0
    bucket.error = None
    bucket.going.set()
    assert await statuses(client, MAX_READERS) == [200] * MAX_READERS


async def test_of_many_that_come_at_the_same_moment_only_so_many_are_served(
    client: httpx.AsyncClient, bucket: Bucket
) -> None:
    asked = asking(client, MAX_READERS + 70)
    await until_true(lambda: sum(one.done() for one in asked) == 70, "all others refused")
    bucket.going.set()
    answers = await ended(asked)
    assert (answers.count(200), answers.count(503)) == (MAX_READERS, 70)
    assert bucket.asked == MAX_READERS
    await assert_all_slots_free(client, bucket)


async def test_one_client_leaves_some_of_the_slots_to_others(client: httpx.AsyncClient, bucket: Bucket) -> None:
    share = MAX_READERS * 3 // 4
    asked = asking(client, MAX_READERS + 70, address="192.0.2.1")
    await until_true(lambda: sum(one.done() for one in asked) == MAX_READERS + 70 - share, "what is more refused")
    others = asking(client, 3)
    await until_true(lambda: bucket.open == share + 3, "slots for others")
    bucket.going.set()
    answers = await ended(asked)
    assert (answers.count(200), answers.count(429)) == (share, MAX_READERS + 70 - share)
    assert await ended(others) == [200] * 3
    await assert_all_slots_free(client, bucket)


@pytest.mark.parametrize(("error", "status"), [(AudioGoneError(), 404), (BackEndError("S3", "down"), 503)])
async def test_what_cannot_be_opened_takes_no_slot(
    client: httpx.AsyncClient, bucket: Bucket, error: Exception, status: int
) -> None:
    bucket.error = error
    for _ in range(MAX_READERS + 1):
        assert await statuses(client, 1) == [status]
    await assert_all_slots_free(client, bucket)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_who_takes_nothing_is_cut_off_and_leaves_its_slot(
    app: FastAPI, client: httpx.AsyncClient, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    bucket.going.set()
    cut: list[str] = []

    async def receive() -> Message:
        return await asyncio.Event().wait() and {}

    async def send(message: Message) -> None:
        if message.get("body"):
            await asyncio.Event().wait()

    class Transport(asyncio.Transport):
        def abort(self) -> None:
            cut.append("cut off")

    with capture_logs() as logged, monkeypatch.context() as impatient:
        impatient.setattr(pace, "IDLE_SECONDS", 0.01)
        await app({**scope_of(spec), "extensions": {TAKE_OVER: lambda _: Transport()}}, receive, send)
        await app(scope_of(spec), receive, send)
    assert cut == ["cut off"]
    assert [line["event"] for line in logged] == ["slow reader cut off"] * 2
    await assert_all_slots_free(client, bucket)


@pytest.mark.parametrize("spec", ["2.3", "2.4"])
async def test_who_is_gone_before_the_body_begins_takes_no_slot(
    app: FastAPI, client: httpx.AsyncClient, bucket: Bucket, spec: str
) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise OSError("gone")

    scopes = [
        {**scope_of(spec), "headers": [(b"x-forwarded-for", b"192.0.2.%d" % number)]}
        for number in range(MAX_READERS + 1)
    ]
    with capture_logs():  # the server that calls an app sees such errors, and they are long
        for one in scopes:
            await asyncio.gather(app(one, receive, send), return_exceptions=True)
    assert bucket.asked == MAX_READERS + 1, "none of them was refused"
    await assert_all_slots_free(client, bucket)


async def test_who_is_cancelled_while_it_reads_leaves_its_slot(client: httpx.AsyncClient, bucket: Bucket) -> None:
    asked = asking(client, MAX_READERS)
    await until_true(lambda: bucket.open == MAX_READERS, "all slots taken")
    for one in asked:
        one.cancel()
    await asyncio.wait(asked)
    await until_true(lambda: bucket.open == 0, "all connections given back")
    await assert_all_slots_free(client, bucket)
