"""Watches the deadlines of analyses. MongoDB keeps them, so they survive a crash and any replica may act on them."""

import asyncio
from collections.abc import Iterable
from time import monotonic

import structlog
from structlog.contextvars import bound_contextvars

from analyzer_bridge.analysis import Analysis
from analyzer_bridge.bridge import Analyses, Bridge
from chassis.periodic import Periodic
from chassis.publishing import Broker
from contracts import topology

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LOOK_ANALYSES = 100
AT_ONCE = 16
"""Overdue analyses pursued at once, so that one that hangs does not hold up the others."""
AFTER_START_SECONDS = 5.0
"""How long a process gives nothing up after its start: messages that wait in the broker come first."""
AFTER_OUTAGE_SECONDS = topology.RETRY_DELAYS[-1].seconds + 15.0
"""The same after an outage: a webhook call that could not be handled during it may wait for the longest retry delay."""


class Deadlines:
    """Looks for overdue analyses every second, and asks for them again or gives them up.

    When the last deadline passes, a webhook call that was accepted may still wait in the broker, and giving up would
    throw its result away. So analyses are given up only while this process consumes, and has done so for some time. The
    next look finds those that are not given up now.
    """

    def __init__(self, bridge: Bridge, analyses: Analyses, broker: Broker) -> None:
        self._bridge = bridge
        self._analyses = analyses
        self._prepared = False
        self._broker = broker
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._starts_until = 0.0
        self._keeps_until = 0.0
        self._looks = Periodic(self._watch, seconds=LOOK_SECONDS, waiting="deadlines wait", at_once=True)

    def start(self) -> None:
        """Begin to watch."""
        self._starts_until = self._keeps_until = monotonic() + AFTER_START_SECONDS
        self._looks.start()

    async def stop(self) -> None:
        """Stop watching; interrupted work is resumed by the next look of any replica."""
        await self._looks.stop()

    async def _watch(self) -> None:
        try:
            if not self._prepared:
                await self._analyses.prepare()
                self._prepared = True
            await self._look()
        except Exception:
            self._keeps_until = monotonic() + AFTER_OUTAGE_SECONDS
            raise

    async def _look(self) -> None:
        overdue = await self._bridge.overdue(LOOK_ANALYSES)
        hopeless = [analysis for analysis in overdue if self._bridge.gives_up(analysis)]
        others = [analysis for analysis in overdue if not self._bridge.gives_up(analysis)]
        await asyncio.gather(self._pursue_all(others), self._give_up(hopeless))

    async def _give_up(self, hopeless: list[Analysis]) -> None:
        if hopeless and await self._may_give_up():
            await self._pursue_all(hopeless)

    async def _may_give_up(self) -> bool:
        if not await self._broker.consumes():
            now = monotonic()
            # A process takes a moment after its start until it consumes: that is no outage.
            wait = AFTER_START_SECONDS if now < self._starts_until else AFTER_OUTAGE_SECONDS
            self._keeps_until = max(self._keeps_until, now + wait)
        return monotonic() >= self._keeps_until

    async def _pursue_all(self, analyses: Iterable[Analysis]) -> None:
        await asyncio.gather(*(self._pursue(analysis) for analysis in analyses))

    async def _pursue(self, analysis: Analysis) -> None:
        async with self._at_once:
            with bound_contextvars(job_id=analysis.job_id, trace_id=analysis.traceparent[3:35]):
                event = await self._bridge.pursue(analysis)
                if event is not None:
                    await self._broker.publish(event)
                    await self._bridge.announced(event)
                    log.info("overdue analysis pursued", type=event.type, attempt=analysis.attempt)
