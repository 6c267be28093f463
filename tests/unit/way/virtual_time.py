"""Time that passes only when all work is done: a loop whose waits end at once, and a clock that agrees with it."""

import asyncio
import selectors
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import structlog

import analyzer_bridge.analysis
import analyzer_bridge.bridge
import analyzer_bridge.deadlines
import analyzer_bridge.room
import analyzer_bridge.telling
import analyzer_bridge.waiting
import chassis.subscribing
import contracts.events
import gateway.availability
import gateway.redrive.loop
import gateway.uploads.publishing
import notifier.expiry

BEGAN = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
_ASK_FOR_DATES: tuple[ModuleType, ...] = (
    analyzer_bridge.analysis,
    analyzer_bridge.bridge,
    analyzer_bridge.deadlines,
    analyzer_bridge.telling,
    analyzer_bridge.waiting,
    chassis.subscribing,
    contracts.events,
    gateway.redrive.loop,
    gateway.uploads.publishing,
    notifier.expiry,
)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits: when nothing is left to do, it is at once as late as the next timer says."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Jumps(self.pass_time))
        self.set_default_executor(_AtOnce())

    def time(self) -> float:
        """Return the seconds that have passed."""
        return self._seconds

    def now(self, zone: tzinfo | None = None) -> datetime:
        """Return the same as a date."""
        return (BEGAN + timedelta(seconds=self._seconds)).astimezone(zone)

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass."""
        self._seconds += seconds

    @contextmanager
    def as_everybodys_clock(self) -> Iterator[None]:
        """Have the services read this clock, and log nothing."""
        dates = SimpleNamespace(now=self.now)
        seconds = SimpleNamespace(monotonic=self.time)
        with ExitStack() as stack:
            for module in _ASK_FOR_DATES:
                stack.enter_context(patch.object(module, "datetime", dates))
            for timed in (gateway.redrive.loop, gateway.availability):
                stack.enter_context(patch.object(timed, "time", seconds))
            stack.enter_context(patch.object(analyzer_bridge.room, "monotonic", self.time))
            structlog.configure(processors=[_drop])
            stack.callback(structlog.reset_defaults)
            yield


class _Jumps(selectors.SelectSelector):
    """Waits for nothing, and says how long it should have waited."""

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        super().__init__()
        self._pass_time = pass_time

    def select(self, timeout: float | None = None) -> Any:
        """Return what is ready now."""
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing will ever happen again")
            self._pass_time(timeout)
        return ready


class _AtOnce(ThreadPoolExecutor):
    """Does at once what is handed to another thread, so that every run is the same."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call `fn` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is for whoever waits
            future.set_exception(error)
        return future


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent
