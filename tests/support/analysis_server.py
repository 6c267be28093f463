"""The fake analysis server on a thread and an event loop of its own, so that it answers whatever a test is doing."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar

from aiohttp import web

from tests.support.fake_analysis_server import FakeAnalysisServer, ReceivedRequest, WebhookCall

Answer = TypeVar("Answer")

SLOW_SECONDS = 2.5


class AnalysisServer:
    """What tests ask of the fake; every method may be awaited on any event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = _WithConnections(slow_seconds=SLOW_SECONDS)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Self]:
        """Listen on a free port until the block ends."""
        server = cls()
        thread = threading.Thread(target=server._loop.run_forever, name="analysis server")
        thread.start()
        try:
            server._wait_for(server._server.start())
            yield server
        finally:
            server._wait_for(server._server.stop())
            server._loop.call_soon_threadsafe(server._loop.stop)
            thread.join()
            server._loop.close()

    @property
    def url(self) -> str:
        """What TARGET_SERVER_URL has to be."""
        return self._server.url

    async def requests_for(self, token_id: str) -> list[ReceivedRequest]:
        """Every request for this token so far, oldest first."""

        async def listed() -> list[ReceivedRequest]:
            return self._server.requests_for(token_id)

        return await self._ask(listed())

    async def request_for(self, token_id: str, count: int = 1, limit_seconds: float = 30.0) -> ReceivedRequest:
        """The `count`-th request for this token, waiting for it; TimeoutError after the limit."""
        return await self._ask(self._server.request_for(token_id, count, limit_seconds))

    async def webhook_of(self, request: ReceivedRequest, count: int = 1, limit_seconds: float = 30.0) -> WebhookCall:
        """The `count`-th webhook call of this request once it is over; TimeoutError after the limit."""
        return await self._ask(self._server.webhook_of(request, count, limit_seconds))

    @asynccontextmanager
    async def away(self, status: int) -> AsyncIterator[None]:
        """Refuse every request with this status (0: by closing its connection) until the block ends."""
        await self._be_away(status)
        try:
            yield
        finally:
            await self._be_away(None)

    async def asked(self) -> int:
        """How many requests have come so far, whatever they were for."""

        async def counted() -> int:
            return len(self._server.requests)

        return await self._ask(counted())

    async def times_asked(self) -> dict[str, int]:
        """How often each recording was asked for so far, by its `s3_audio_url`."""

        async def counted() -> dict[str, int]:
            return self._server.times_asked()

        return await self._ask(counted())

    async def _be_away(self, status: int | None) -> None:
        async def set_away() -> None:
            self._server.away = status

        await self._ask(set_away())

    async def connections_for(self, token_id: str) -> set[object]:
        """The connections, told apart by the caller's port, that requests for this token came over."""

        async def counted() -> set[object]:
            return set(self._server.connections.get(token_id, ()))

        return await self._ask(counted())

    async def _ask(self, question: Coroutine[Any, Any, Answer]) -> Answer:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(question, self._loop))

    def _wait_for(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)


class _WithConnections(FakeAnalysisServer):
    """Also notes which connection each request came over."""

    def __init__(self, *, slow_seconds: float) -> None:
        super().__init__(slow_seconds=slow_seconds)
        self.connections: dict[str, list[object]] = {}

    async def _analyze(self, http_request: web.Request) -> web.StreamResponse:
        form = await http_request.post()
        if http_request.transport is not None:
            peer = http_request.transport.get_extra_info("peername")
            self.connections.setdefault(str(form.get("video_id", "")), []).append(peer)
        return await super()._analyze(http_request)
