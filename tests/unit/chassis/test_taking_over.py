"""A connection that is taken over: its response goes on without the request, and the server forgets it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from chassis.plain_http import TAKE_OVER, PlainHttp
from tests.support.waiting import until_true

REQUEST = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


class Taken(asyncio.Protocol):
    """What took a connection over."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.lost.set()


class Server:
    """A server whose responses are taken over, once `go` is set."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.go = asyncio.Event()
        self.go.set()
        self.begun = asyncio.Event()
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._answer, interface="asgi3", port=0, http=PlainHttp, ws="none", lifespan="off", log_config=None
            )
        )

    async def _answer(self, scope: Scope, _: Receive, send: Send) -> None:
        self.begun.set()
        await self.go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        taken = Taken()
        taken.transport = scope["extensions"][TAKE_OVER](taken)
        self.taken.append(taken)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        port = self.uvicorn.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(10):
                yield reader, writer
        finally:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Run it, and stop it: which fails while a request is under way."""
    running = Server()
    serving = asyncio.create_task(running.uvicorn.serve())
    await until_true(lambda: running.uvicorn.started, "the server to start")
    yield running
    running.uvicorn.should_exit = True
    async with asyncio.timeout(10):
        await serving


async def test_what_took_a_connection_over_writes_the_body_and_ends_it(server: Server) -> None:
    async with server.connection() as (reader, writer):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"transfer-encoding: chunked\r\n" in head
        (taken,) = server.taken
        assert taken.transport is not None
        assert not server.uvicorn.server_state.connections
        await until_true(lambda: not server.uvicorn.server_state.tasks, "the end of the request")
        for text in (b"one", b"two"):
            taken.transport.write(b"%x\r\n%b\r\n" % (len(text), text))
            assert await reader.readuntil(text + b"\r\n")
        taken.transport.write(b"0\r\n\r\n")
        taken.transport.close()
        assert await reader.read() == b"0\r\n\r\n"
        await taken.lost.wait()


async def test_what_took_a_connection_over_learns_that_the_client_has_left(server: Server) -> None:
    async with server.connection() as (reader, writer):
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"something that nobody reads")
        writer.close()
        await server.taken[0].lost.wait()


async def test_a_connection_of_a_client_who_has_left_cannot_be_taken_over(server: Server) -> None:
    server.go.clear()
    async with server.connection() as (_, writer):
        writer.write(REQUEST)
        await server.begun.wait()
        writer.transport.abort()
        await until_true(lambda: not server.uvicorn.server_state.connections, "a closed connection")
        server.go.set()
        await until_true(lambda: bool(server.taken), "the request's end")
    assert server.taken[0].transport is None
