"""Work that a service repeats at intervals for as long as it runs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from chassis.errors import reason_of

log = structlog.get_logger()

LOOKS_PER_AGE = 10


def pace(age: timedelta, longest_seconds: float) -> float:
    """Return the seconds between two looks for what is older than `age`: a tenth of that, `longest_seconds` at most."""
    return min(age.total_seconds() / LOOKS_PER_AGE, longest_seconds)


class Periodic:
    """Calls `look` every `seconds` until it is stopped. A look that fails is logged under the message `waiting`."""

    def __init__(
        self,
        look: Callable[[], Awaitable[None]],
        *,
        seconds: float | Callable[[], float],
        waiting: str,
        at_once: bool = False,
    ) -> None:
        self._look = look
        self._seconds = seconds
        self._waiting = waiting
        self._at_once = at_once
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a look when `at_once` is set, else with a wait."""
        self._running = asyncio.create_task(self._run())

    def wake(self) -> None:
        """End the wait at hand, or the next one when a look is under way."""
        self._woken.set()

    async def stop(self) -> None:
        """Cancel the look that is under way, if any, and return once it has ended."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        if not self._at_once:
            await self._wait()
        while True:
            self._woken.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - most likely an outage: the next look tries again
                log.warning(self._waiting, reason=reason_of(error))
            await self._wait()

    async def _wait(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds() if callable(self._seconds) else self._seconds):
                await self._woken.wait()
