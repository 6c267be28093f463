"""Clients that hold what a gateway has few of by being slow: those of one address, and those of many."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest

from gateway.web.slots import MAX_READERS, MAX_UPLOADS
from local_stack.stack import Stack
from tests.support.raw_http import RawConnection, raw_connection
from tests.support.recordings import wav
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.waiting import until

HONEST = "127.0.0.9"
LARGE = wav(58.0, seed=3, rate=192_000)
"""More than the sockets on its way hold."""
BYTES_PER_SECOND = 1126
"""The pace of the attack that was seen: a hundred such uploads are 110 KiB/s."""
ENDED_SECONDS = 60
SLOW_UPLOAD = {"Content-Type": "audio/wav", "Content-Length": str(len(LARGE))}


class SlowClients:
    """Connections to one gateway, each with an upload that comes slowly, or with audio that nobody reads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._held = AsyncExitStack()
        self._dripping: list[asyncio.Task[None]] = []

    async def upload(self, address: str) -> None:
        """Begin an upload, and let it drip."""
        client = await self._held.enter_async_context(raw_connection(self._url, address))
        await client.begin(f"/tokens/{new_token()}/upload-audio", SLOW_UPLOAD)
        self._dripping.append(asyncio.create_task(_drip(client)))

    async def read(self, path: str, address: str) -> None:
        """Ask for audio, and take none of it."""
        client = await self._held.enter_async_context(raw_connection(self._url, address))
        await client.begin(path, {}, method="GET")

    async def close(self) -> None:
        """End all of them."""
        for task in self._dripping:
            task.cancel()
        await asyncio.wait(self._dripping)
        await self._held.aclose()


async def _drip(client: RawConnection) -> None:
    content = memoryview(LARGE)
    with suppress(ConnectionError):
        for at in range(0, len(LARGE), BYTES_PER_SECOND):
            await client.send(bytes(content[at : at + BYTES_PER_SECOND]))
            await asyncio.sleep(1)  # the attack's own pace; no fact is waited for


@pytest.fixture
def url(stack: Stack) -> str:
    """One gateway, without the edge: it sees the addresses that the clients come from."""
    return stack.parts["gateway-1"].address


@pytest.fixture
async def slow(url: str) -> AsyncIterator[SlowClients]:
    clients = SlowClients(url)
    yield clients
    await clients.close()


@asynccontextmanager
async def honest_client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody else, at an address of its own."""
    transport = httpx.AsyncHTTPTransport(local_address=HONEST)
    async with httpx.AsyncClient(transport=transport, base_url=url, timeout=30) as client:
        yield client


@pytest.fixture
async def audio_path(sori: Sori) -> str:
    """Where a large recording is read."""
    return f"/jobs/{(await sori.completed(LARGE))['job_id']}/audio"


async def uploaded(client: httpx.AsyncClient) -> int:
    """Upload a small recording; the status of the answer."""
    answer = await client.post(
        f"/tokens/{new_token()}/upload-audio", content=RECORDING, headers={"Content-Type": "audio/wav"}
    )
    return answer.status_code


async def heard(client: httpx.AsyncClient, path: str) -> int:
    """Read a whole recording; the status of the answer."""
    answer = await client.get(path)
    assert answer.status_code != 200 or answer.content == LARGE
    return answer.status_code


@pytest.mark.timeout(120)
async def test_slow_clients_of_one_address_leave_room_for_others(slow: SlowClients, url: str, audio_path: str) -> None:
    for _ in range(MAX_UPLOADS):
        await slow.upload("127.0.0.2")
    for _ in range(MAX_READERS):
        await slow.read(audio_path, "127.0.0.2")
    async with (
        honest_client(url) as honest,
        httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2"), base_url=url, timeout=30
        ) as same,
    ):

        async def refused() -> bool:
            return (await uploaded(same), await heard(same, audio_path)) == (429, 429)

        await until(refused, "the slow one's own share taken")
        assert [await uploaded(honest) for _ in range(3)] == [202] * 3
        assert [await heard(honest, audio_path) for _ in range(3)] == [200] * 3


@pytest.mark.timeout(200)
async def test_slow_clients_of_many_addresses_are_ended_in_bounded_time(
    slow: SlowClients, url: str, audio_path: str
) -> None:
    began = time.monotonic()
    for number in range(MAX_UPLOADS):
        await slow.upload(f"127.0.1.{number + 1}")
    for number in range(MAX_READERS):
        await slow.read(audio_path, f"127.0.1.{number + 1}")
    async with honest_client(url) as honest:

        async def full() -> bool:
            return (await uploaded(honest), await heard(honest, audio_path)) == (503, 503)

        async def served() -> bool:
            return (await uploaded(honest), await heard(honest, audio_path)) == (202, 200)

        await until(full, "all slots taken")
        await until(served, "slots free again", limit_seconds=ENDED_SECONDS, every_seconds=0.5)
    assert time.monotonic() - began < ENDED_SECONDS + 10
