"""Bad networks between the analysis server of the stack and S3: a recording is analysed later, and never wrongly."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.support.analysis_program import Program, Receiver, Store, running, running_receiver, running_store
from tests.support.proxy import Proxies, Proxy, Weather
from tests.support.recordings import wav
from tests.support.waiting import until

LIMIT_SECONDS = 90.0
"""A connection that has gone half-open is given up after 30 s."""


@dataclass
class Analysed:
    """An analysis server that reaches its store through a proxy."""

    store: Store
    proxy: Proxy
    server: Program
    receiver: Receiver

    async def analysis(self, audio: str) -> dict[str, object]:
        """Have a recording analysed, and return what the webhook was told. What is not taken on is sent again."""

        async def taken_on() -> httpx.Response | None:
            answer = await self.server.analyse(audio, self.receiver.address("/hook"))
            assert answer.status_code == 200 or answer.json()["code"] == "storage_away", answer.text
            return answer if answer.status_code == 200 else None

        accepted = await until(taken_on, "a recording that is taken on", limit_seconds=LIMIT_SECONDS)
        _, body, _ = await asyncio.wait_for(self.receiver.received.get(), LIMIT_SECONDS)
        assert body.pop("job_id") == accepted.json()["job_id"]
        return body


@pytest.fixture(scope="module")
def proxies() -> Iterator[Proxies]:
    with Proxies.running() as opened:
        yield opened


@pytest.fixture(scope="module")
async def analysed(proxies: Proxies, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Analysed]:
    folder = tmp_path_factory.mktemp("server")
    async with running_store(tmp_path_factory.mktemp("s3")) as store, running_receiver() as receiver:
        proxy = proxies.in_front_of("analysis-server>s3", store.url)
        async with running(store, folder, S3_ENDPOINT_URL=proxy.through(store.url)) as server:
            yield Analysed(store, proxy, server, receiver)


def slow(proxy: Proxy) -> None:
    proxy.weather = Weather(latency_seconds=0.1)


def dripping(proxy: Proxy) -> None:
    proxy.weather = Weather(drip_bytes=256)


def cutting(proxy: Proxy) -> None:
    proxy.cut(3, seed=1, within_bytes=3000)


def half_open(proxy: Proxy) -> None:
    proxy.leave_half_open()


@pytest.mark.parametrize("make_bad", [slow, dripping, cutting, pytest.param(half_open, marks=pytest.mark.full)])
async def test_a_recording_is_analysed_whatever_the_network_does(
    analysed: Analysed, make_bad: Callable[[Proxy], object]
) -> None:
    audio = analysed.store.put("a.wav", wav(0.4, seed=1))
    expected = await analysed.analysis(audio)
    assert expected["status"] == "completed"
    make_bad(analysed.proxy)
    assert await analysed.analysis(audio) == expected
    if make_bad is cutting:
        assert analysed.proxy.cuts
    analysed.proxy.heal()


async def test_a_recording_waits_for_a_store_that_is_away(analysed: Analysed) -> None:
    audio = analysed.store.put("a.wav", wav(0.4, seed=1))
    expected = await analysed.analysis(audio)
    analysed.proxy.refuse()

    async def noticed() -> bool:
        return (await analysed.server.get("/health/ready")).status_code == 503

    await until(noticed, "an analysis server that says that its store is away")
    analysing = asyncio.create_task(analysed.analysis(audio))
    await analysed.server.logged("job-not-kept")
    analysed.proxy.heal()
    assert await analysing == expected
