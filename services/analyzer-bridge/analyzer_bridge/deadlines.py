"""Watches the deadlines of analyses. MongoDB keeps them, so they survive a crash and any replica may act on them."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from analyzer_bridge.analysis import Analysis
from analyzer_bridge.bridge import Analyses, Bridge
from analyzer_bridge.pursuing import pursue
from analyzer_bridge.room import Room
from chassis.periodic import Periodic
from chassis.publishing import Broker
from contracts import topology

LOOK_SECONDS = 1.0
LOOK_ANALYSES = 100
AT_ONCE = 16
"""Overdue analyses pursued at once."""
CONSUMES_FOR = timedelta(seconds=topology.RETRY_DELAYS[-1].seconds + 15.0)
"""How long this process must have consumed before anything is asked for again or given up.

A webhook call that could not be handled may wait in the broker for the longest retry delay: it comes first.
"""
STOOD_STILL = timedelta(seconds=5)
"""After so long without a look this process has not been running, or its looks have failed."""


def _now() -> datetime:
    return datetime.now(UTC)


class Deadlines:
    """Looks every second for outcomes that were not announced and for overdue analyses, and has somebody ask.

    When a deadline passes, a webhook call that was accepted may still wait in the broker. Asking again would have the
    recording analysed twice, and giving up would throw its result away. So nothing is overdue for a process that does
    not consume, or has not done so for CONSUMES_FOR. A process that was stopped, or could not reach MongoDB, has not
    handled what it consumed: that time counts from then on.
    """

    def __init__(
        self, bridge: Bridge, analyses: Analyses, broker: Broker, room: Room, *, now: Callable[[], datetime] = _now
    ) -> None:
        self._bridge = bridge
        self._analyses = analyses
        self._broker = broker
        self._room = room
        self._now = now
        self._prepared = False
        self._last_look: datetime | None = None
        self._looks_since = now()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._looks = Periodic(self._look, seconds=LOOK_SECONDS, waiting="deadlines wait", at_once=True)

    def start(self) -> None:
        """Begin to watch."""
        self._looks.start()

    async def stop(self) -> None:
        """Stop watching; interrupted work is resumed by the next look of any replica."""
        await self._looks.stop()

    async def _look(self) -> None:
        now = self._now()
        if self._last_look is None or now - self._last_look > STOOD_STILL:
            self._looks_since = now
        self._last_look = None
        if not self._prepared:
            await self._analyses.prepare()
            self._prepared = True
        await self._room.count(self._analyses.count_asked)
        self._room.wake()
        await self._pursue_all(await self._analyses.unannounced(LOOK_ANALYSES))
        if self._is_up_to_date(now):
            await self._pursue_all(await self._analyses.overdue(now, LOOK_ANALYSES))
        self._last_look = now

    def _is_up_to_date(self, now: datetime) -> bool:
        since = self._broker.consuming_since()
        return since is not None and now - max(since, self._looks_since) >= CONSUMES_FOR

    async def _pursue_all(self, analyses: list[Analysis]) -> None:
        await asyncio.gather(*(self._pursue(analysis) for analysis in analyses))

    async def _pursue(self, analysis: Analysis) -> None:
        async with self._at_once:
            await pursue(analysis, self._bridge.pursue, self._bridge, self._broker)
