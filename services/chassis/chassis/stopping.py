"""Graceful shutdown: what happens between the signal to stop and the server's own shutdown."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import structlog

log = structlog.get_logger()

SHARE_FOR_WORK = 0.35
"""The share of SHUTDOWN_GRACE in which work in hand may end. Connections then get as long; the rest is for closing."""


class Stopping:
    """At the signal, turns readiness off and runs `begin` for a limited time, then lets the server shut down.

    `begin` is told how many seconds it has. Until the server shuts down, new requests are served as usual, because
    their senders do not know yet that this process is stopping.
    """

    def __init__(self, begin: Callable[[float], Awaitable[None]], grace_seconds: float) -> None:
        self._begin = begin
        self._seconds = grace_seconds * SHARE_FOR_WORK
        self._begun: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin at SIGTERM or SIGINT. Call this in the event loop, after the server has set its own handlers.

        It does nothing outside the main thread, where Python allows no signal handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            server: Any = signal.getsignal(number)

            def on_signal(received: int, frame: FrameType | None, close_doors: Any = server) -> None:
                loop.call_soon_threadsafe(self._on_signal, lambda: close_doors(received, frame))

            signal.signal(number, on_signal)

    @property
    def has_begun(self) -> bool:
        """Tell whether the process was told to stop."""
        return self._begun is not None

    async def is_accepting(self) -> bool:
        """Tell whether this process accepts new work: not once it was told to stop."""
        return not self.has_begun

    async def finish(self) -> None:
        """Return when `begin` has ended or its time is up; start it now if there was no signal."""
        await asyncio.wait([self._start()])

    def _on_signal(self, close_doors: Callable[[], None]) -> None:
        if self._begun is not None:  # a second signal means: do not wait for `begin`
            close_doors()
        else:
            self._start().add_done_callback(lambda _: close_doors())

    def _start(self) -> asyncio.Task[None]:
        if self._begun is None:
            self._begun = asyncio.create_task(self._bounded())
        return self._begun

    async def _bounded(self) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                await self._begin(self._seconds)
        except Exception as error:  # noqa: BLE001 - the process must end, whatever failed
            log.warning("work in hand did not end", reason=type(error).__name__)
