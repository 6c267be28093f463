"""Watches the deadlines of analyses: they lie in MongoDB, so they outlive a crash, and any replica may act on them."""

import asyncio
from typing import Protocol

import structlog
from structlog.contextvars import bound_contextvars

from analyzer_bridge.analyses import Analysis, Bridge
from contracts.events import Event

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LOOK_ANALYSES = 100
AT_ONCE = 16
"""Overdue analyses pursued at once: one that hangs holds up none of the others."""


class Publisher(Protocol):
    """The broker."""

    async def publish(self, event: Event) -> None:
        """Return once the event is safe."""


class Store(Protocol):
    """The collection that the deadlines lie in."""

    async def prepare(self) -> None:
        """Create the indexes."""


class Deadlines:
    """Asks again for overdue analyses, or gives them up, one look each second."""

    def __init__(self, bridge: Bridge, store: Store, publisher: Publisher) -> None:
        self._bridge = bridge
        self._store = store
        self._publisher = publisher
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop watching; what was begun is taken up again by the next look of any replica."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        prepared = False
        while True:
            try:
                if not prepared:
                    await self._store.prepare()
                    prepared = True
                overdue = await self._bridge.overdue(LOOK_ANALYSES)
                await asyncio.gather(*(self._pursue(analysis) for analysis in overdue))
            except Exception as error:  # noqa: BLE001 - an outage: the next look tries again
                log.warning("deadlines wait", reason=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def _pursue(self, analysis: Analysis) -> None:
        async with self._at_once:
            with bound_contextvars(job_id=analysis.job_id, trace_id=analysis.traceparent[3:35]):
                event = await self._bridge.pursue(analysis)
                if event is not None:
                    await self._publisher.publish(event)
                    await self._bridge.announced(event)
                    log.info("overdue analysis pursued", type=event.type, attempt=analysis.attempt)
