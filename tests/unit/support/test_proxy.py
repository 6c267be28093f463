"""The proxy of the fault tests does to connections what it says."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.support.proxy import Proxies, Proxy, Weather

MESSAGE = b"0123456789" * 100
SOON_SECONDS = 5.0


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy in front of a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        with Proxies.running() as proxies:
            yield proxies.to("test>echo", server.sockets[0].getsockname()[1])
        await asyncio.sleep(0)


class Client:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, proxy: Proxy) -> "Client":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def echoed(self) -> bytes:
        """Send the message and read what comes back, until it is whole or the connection ends."""
        self.writer.write(MESSAGE)
        found = b""
        async with asyncio.timeout(SOON_SECONDS):
            while len(found) < len(MESSAGE) and (piece := await self.reader.read(1024)):
                found += piece
        return found

    async def close(self) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def test_what_is_sent_comes_through_whole(proxy: Proxy) -> None:
    client = await Client.of(proxy)
    assert await client.echoed() == MESSAGE
    assert (proxy.accepted, proxy.open_connections) == (1, 1)
    await client.close()


@pytest.mark.parametrize("weather", [Weather(latency_seconds=0.1), Weather(drip_bytes=100)])
async def test_bad_weather_takes_its_time(proxy: Proxy, weather: Weather) -> None:
    client = await Client.of(proxy)
    proxy.weather = weather
    began = time.monotonic()
    assert await client.echoed() == MESSAGE
    assert time.monotonic() - began >= 0.09
    await client.close()


async def test_a_cut_breaks_the_connection_in_the_middle_of_a_message(proxy: Proxy) -> None:
    proxy.cut(6, seed=1, within_bytes=len(MESSAGE))
    for _ in range(6):
        client = await Client.of(proxy)
        with suppress(ConnectionResetError):
            assert len(await client.echoed()) < len(MESSAGE)
        await client.close()
    assert proxy.cuts == 6
    client = await Client.of(proxy)
    assert await client.echoed() == MESSAGE, "so many cuts and no more"
    await client.close()


async def test_a_half_open_connection_loses_everything_and_says_nothing_while_new_ones_work(proxy: Proxy) -> None:
    client = await Client.of(proxy)
    assert await client.echoed() == MESSAGE
    assert proxy.leave_half_open() == 1
    client.writer.write(MESSAGE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.2)
    another = await Client.of(proxy)
    assert await another.echoed() == MESSAGE
    proxy.heal()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.2)
    await client.close()
    await another.close()


async def test_what_swallows_takes_connections_and_never_answers(proxy: Proxy) -> None:
    proxy.swallow()
    client = await Client.of(proxy)
    client.writer.write(MESSAGE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.reader.read(1), 0.2)
    proxy.heal()
    another = await Client.of(proxy)
    assert await another.echoed() == MESSAGE
    await client.close()
    await another.close()


async def test_what_refuses_resets_what_there_is_and_is_back_on_the_same_port(proxy: Proxy) -> None:
    client = await Client.of(proxy)
    assert await client.echoed() == MESSAGE
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        await client.reader.read(1)
    with pytest.raises(ConnectionRefusedError):
        await Client.of(proxy)
    proxy.heal()
    another = await Client.of(proxy)
    assert await another.echoed() == MESSAGE
    await client.close()
    await another.close()


def test_an_address_by_way_of_the_proxy_keeps_all_but_the_place() -> None:
    with Proxies.running() as proxies:
        proxy = proxies.in_front_of("a>b", "amqp://user:word@127.0.0.1:5672/here")
        there = f"127.0.0.1:{proxy.port}"
        assert proxy.through("amqp://user:word@127.0.0.1:5672/here") == f"amqp://user:word@{there}/here"
        assert proxy.through("http://127.0.0.1:9000") == f"http://{there}"
        mongodb = proxy.through("mongodb://127.0.0.1:27017/sori?replicaSet=rs0")
        assert mongodb == f"mongodb://{there}/sori?directConnection=true"
