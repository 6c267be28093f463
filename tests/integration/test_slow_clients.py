"""Clients that hold what a gateway has few of by being slow: those of one address, and those of many."""

import asyncio
from collections.abc import AsyncIterator, Callable
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
SPARE = 3
"""Slow clients for slots that the honest one has for a moment while they come."""
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

    async def read(self, path: str, address: str) -> int:
        """Ask for audio, and take none of it; the status of the answer."""
        client = await self._held.enter_async_context(raw_connection(self._url, address))
        await client.begin(path, {}, method="GET")
        return await client.status()

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
async def client_at(address: str, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client whose requests come from this address."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
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


async def full(client: httpx.AsyncClient, slow: SlowClients, path: str, addresses: Callable[[int], str]) -> set[int]:
    """Have slow clients take all slots that they get, until `client` is refused both; the statuses of its refusals."""

    async def not_taken_in() -> int | None:
        status = await uploaded(client)
        return None if status == 202 else status

    async def not_heard() -> int | None:
        status = await heard(client, path)
        return None if status == 200 else status

    for number in range(MAX_UPLOADS + SPARE):
        await slow.upload(addresses(number))
    refusals = {await until(not_taken_in, "no slot for one more upload")}
    for number in range(MAX_READERS + SPARE):
        await slow.read(path, addresses(number))
    return refusals | {await until(not_heard, "no slot for one more reader")}


@pytest.mark.timeout(120)
async def test_slow_clients_of_one_address_leave_room_for_others(slow: SlowClients, url: str, audio_path: str) -> None:
    async with client_at("127.0.0.2", url) as same, client_at(HONEST, url) as honest:
        assert await full(same, slow, audio_path, lambda _: "127.0.0.2") == {429}
        assert [await uploaded(honest) for _ in range(3)] == [202] * 3
        assert [await heard(honest, audio_path) for _ in range(3)] == [200] * 3


@pytest.mark.timeout(200)
async def test_slow_clients_of_many_addresses_are_ended_in_bounded_time(
    slow: SlowClients, url: str, audio_path: str
) -> None:
    async with client_at(HONEST, url) as honest:

        async def served() -> bool:
            return (await uploaded(honest), await heard(honest, audio_path)) == (202, 200)

        assert await full(honest, slow, audio_path, lambda number: f"127.0.1.{number + 1}") == {503}
        await until(served, "slots free again", limit_seconds=ENDED_SECONDS, every_seconds=0.5)
