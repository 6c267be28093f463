"""Stopping well: what begins the moment that the process is told to stop, beside what the server does then."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

SHARE_FOR_WORK = 0.75
"""Of SHUTDOWN_GRACE, for work in hand to end; the rest is for closing what is then left."""


class Stopping:
    """Readiness is off from the signal on. `begin` is given the seconds that it may take."""

    def __init__(self, begin: Callable[[float], Awaitable[None]], grace_seconds: float) -> None:
        self._begin = begin
        self._grace_seconds = grace_seconds
        self._begun: asyncio.Future[None] | None = None

    def watch(self) -> None:
        """Begin at SIGTERM or SIGINT; to be called in the event loop, after the server has set its own handlers."""
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            server = signal.getsignal(number)

            def on_signal(received: int, frame: FrameType | None, server: Any = server) -> None:
                loop.call_soon_threadsafe(self._start)
                if callable(server):
                    server(received, frame)

            signal.signal(number, on_signal)

    async def is_accepting(self) -> bool:
        """Tell whether new work is welcome."""
        return self._begun is None

    async def finish(self) -> None:
        """Return when what began has ended; without a signal it begins now."""
        await self._start()

    def _start(self) -> asyncio.Future[None]:
        if self._begun is None:
            self._begun = asyncio.ensure_future(self._begin(self._grace_seconds * SHARE_FOR_WORK))
        return self._begun
