"""Stopping well: what is done between the signal to stop and the closing of the doors."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

import structlog

log = structlog.get_logger()

SHARE_FOR_WORK = 0.35
"""Of SHUTDOWN_GRACE, for work in hand to end; connections then have as long, and the rest is for closing."""


class Stopping:
    """Readiness is off from the signal on, and `begin` is done, in the seconds that it is given; then the doors close.

    Until they do, what comes is served as ever: whoever sends it does not know yet.
    """

    def __init__(self, begin: Callable[[float], Awaitable[None]], grace_seconds: float) -> None:
        self._begin = begin
        self._seconds = grace_seconds * SHARE_FOR_WORK
        self._begun: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Begin at SIGTERM or SIGINT; to be called in the event loop, after the server has set its own handlers."""
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
        """Tell whether new work is welcome."""
        return not self.has_begun

    async def finish(self) -> None:
        """Return when what began has ended; without a signal it begins now."""
        await asyncio.wait([self._start()])

    def _on_signal(self, close_doors: Callable[[], None]) -> None:
        if self._begun is not None:  # the second signal is from somebody who is in a hurry
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the process is to end
            log.warning("work in hand did not end", reason=type(error).__name__)
