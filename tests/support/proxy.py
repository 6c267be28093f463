"""A TCP proxy with which a test makes the network bad: slow, dripping, cut in mid-message, half-open, silent or gone.

No package on PyPI fits: those that run on this Python can only slow a connection down, or cannot leave it half-open.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

Answer = TypeVar("Answer")

LOOPBACK = "127.0.0.1"
READ_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of 0: closing sends a reset instead of an orderly end."""


@dataclass(frozen=True)
class Weather:
    """How bytes travel, both ways."""

    latency_seconds: float = 0.0
    drip_bytes: int = 0
    """How many bytes to send at a time, DRIP_SECONDS apart; 0 sends them as they come."""


DRIP_SECONDS = 0.01
END_SECONDS = 10.0
FAIR = Weather()


class Proxies:
    """Any number of proxies on a thread and an event loop of their own, so that no test can hold them up."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxies: list[Proxy] = []

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Serve until the block ends."""
        proxies = cls()
        thread = threading.Thread(target=proxies._loop.run_forever, name="proxies")
        thread.start()
        try:
            yield proxies
        finally:
            for proxy in proxies._proxies:
                proxy.close()
            proxies.ask(_all_tasks_done())
            proxies._loop.call_soon_threadsafe(proxies._loop.stop)
            thread.join()
            proxies._loop.close()

    def to(self, name: str, port: int) -> "Proxy":
        """Open a proxy in front of a port of this machine."""
        proxy = Proxy(self, name, port)
        self._proxies.append(proxy)
        proxy.open()
        return proxy

    def in_front_of(self, name: str, url: str) -> "Proxy":
        """Open a proxy in front of the server at this address."""
        return self.to(name, urlsplit(url).port or 0)

    def ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        """Run a coroutine on the proxies' own loop; to be called from any other thread."""
        return asyncio.run_coroutine_threadsafe(question, self._loop).result(timeout=30)


class Proxy:
    """One proxy to one port. Every method may be called from any thread, and has taken effect when it returns."""

    def __init__(self, proxies: Proxies, name: str, target: int) -> None:
        self.name = name
        self.weather = FAIR
        self.accepted = 0
        self.cuts = 0
        self._proxies = proxies
        self._target = target
        self._socket = _bound(0)
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._swallowing = False
        self._connections: set[_Connection] = set()
        self._cuts_left = 0
        self._random = random.Random(0)
        self._cut_within = 0

    def through(self, url: str) -> str:
        """The same address, but by way of this proxy."""
        address = urlsplit(url)
        credentials, at, _ = address.netloc.rpartition("@")
        moved = address._replace(netloc=f"{credentials}{at}{LOOPBACK}:{self.port}")
        if address.scheme == "mongodb":
            # Otherwise the driver asks the replica set for its members, and connects to them past the proxy.
            moved = moved._replace(query="directConnection=true")
        return moved.geturl()

    @property
    def open_connections(self) -> int:
        """How many connections go through it now; half-open ones are not counted."""
        return sum(not connection.silent for connection in self._connections)

    def open(self) -> None:
        """Let connections through."""
        self._proxies.ask(self._open())

    def refuse(self) -> None:
        """Refuse connections, and reset those that there are, as when the other side's process is gone."""
        self._do(self._refuse)

    def close(self) -> None:
        """Refuse connections for good."""
        self.refuse()
        self._socket.close()

    def swallow(self) -> None:
        """Drop all data from now on, on new connections too, and tell neither side."""
        self._do(self._swallow)

    def leave_half_open(self) -> int:
        """Drop, for good, all data on the present connections; new ones work. Returns how many are lost."""
        return self._do(self._leave_half_open)

    def cut(self, times: int, seed: int, within_bytes: int) -> None:
        """Break the next connections, `times` times, each after fewer than `within_bytes` bytes went through."""
        self._do(lambda: self._cut(times, seed, within_bytes))

    def heal(self) -> None:
        """Make the network good again; half-open connections stay half-open."""
        self._proxies.ask(self._heal())

    def may_cut(self, connection: "_Connection", size: int) -> int | None:
        """How many of the next `size` bytes still go through before this connection breaks, None when all do."""
        if not self._cuts_left:
            return None
        if connection.bytes_to_cut is None:
            connection.bytes_to_cut = self._random.randrange(1, self._cut_within)
        if size < connection.bytes_to_cut:
            connection.bytes_to_cut -= size
            return None
        self._cuts_left -= 1
        self.cuts += 1
        return connection.bytes_to_cut

    def orderly(self) -> bool:
        """Whether the next break is an orderly end in the middle of a message, or a reset."""
        return self._random.random() < 0.5

    def forget(self, connection: "_Connection") -> None:
        """A connection has ended."""
        self._connections.discard(connection)

    def _do(self, act: Callable[[], Answer]) -> Answer:
        async def done() -> Answer:
            return act()

        return self._proxies.ask(done())

    async def _open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, sock=self._socket, limit=READ_BYTES)

    def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            # Keep the port while nobody listens, so that no other program gets it.
            self._socket = _bound(self.port)
        for connection in list(self._connections):
            connection.end(orderly=False)

    def _swallow(self) -> None:
        self._swallowing = True
        self._leave_half_open()

    def _leave_half_open(self) -> int:
        lost = [connection for connection in self._connections if not connection.silent]
        for connection in lost:
            connection.silent = True
        return len(lost)

    def _cut(self, times: int, seed: int, within_bytes: int) -> None:
        self.cuts, self._cuts_left = 0, times
        self._random, self._cut_within = random.Random(seed), within_bytes
        for connection in self._connections:
            connection.bytes_to_cut = None

    async def _heal(self) -> None:
        self.weather, self._swallowing, self._cuts_left = FAIR, False, 0
        await self._open()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(self, writer)
        self._connections.add(connection)
        if self._swallowing:
            connection.silent = True
            await connection.carry(reader, None)
            return
        try:
            there, back = await asyncio.open_connection(LOOPBACK, self._target, limit=READ_BYTES)
        except OSError:
            connection.end(orderly=False)
            return
        connection.writers.append(back)
        await asyncio.gather(connection.carry(reader, back), connection.carry(there, writer))
        if not connection.silent:
            connection.end(orderly=True)


class _Connection:
    """Two sockets, and what is passed on between them."""

    def __init__(self, proxy: Proxy, writer: asyncio.StreamWriter) -> None:
        self.silent = False
        self.writers = [writer]
        self.bytes_to_cut: int | None = None
        self._proxy = proxy

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        """Pass one direction on until it ends. A silent connection is read, but neither data nor end is passed on."""
        try:
            while data := await reader.read(READ_BYTES):
                if writer is not None and not self.silent:
                    await self._pass_on(data, writer)
            if writer is not None and not self.silent:
                writer.write_eof()
        except OSError:
            if not self.silent:
                self.end(orderly=False)

    def end(self, *, orderly: bool) -> None:
        """Close both sides."""
        for writer in self.writers:
            if not orderly and (raw := writer.get_extra_info("socket")) is not None and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            # An orderly end sends what was passed on before; a reset loses it.
            if orderly:
                writer.close()
            else:
                writer.transport.abort()
        self._proxy.forget(self)

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        proxy = self._proxy
        if proxy.weather.latency_seconds:
            await asyncio.sleep(proxy.weather.latency_seconds)
        whole = proxy.may_cut(self, len(data))
        if whole is not None:
            writer.write(data[:whole])
            self.end(orderly=proxy.orderly())
            raise ConnectionAbortedError
        for piece in _pieces(data, proxy.weather.drip_bytes):
            if self.silent:
                return
            writer.write(piece)
            await writer.drain()
            if proxy.weather.drip_bytes:
                await asyncio.sleep(DRIP_SECONDS)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)] if size else [data]


def _bound(port: int) -> socket.socket:
    """A socket that has the port but does not listen, so that connections are refused."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((LOOPBACK, port))
    return bound


async def _all_tasks_done() -> None:
    """Wait for the tasks that still pass data on; all their connections have been reset by now."""
    if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(tasks, timeout=END_SECONDS)
