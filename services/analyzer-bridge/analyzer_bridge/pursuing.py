"""What is done with an analysis that a look has found, for whatever reason it was looked for."""

from collections.abc import Awaitable, Callable

import structlog
from structlog.contextvars import bound_contextvars

from analyzer_bridge.analysis import Analysis
from analyzer_bridge.bridge import Bridge
from chassis.errors import reason_of
from chassis.publishing import Publisher
from contracts.events import Event

log = structlog.get_logger()


async def pursue(
    analysis: Analysis, act: Callable[[Analysis], Awaitable[Event | None]], bridge: Bridge, publisher: Publisher
) -> None:
    """Act on the analysis, and publish what there is to tell. What fails is logged: the next look finds it again."""
    with bound_contextvars(job_id=analysis.job_id, trace_id=analysis.traceparent[3:35]):
        try:
            event = await act(analysis)
            if event is not None:
                await publisher.publish(event)
                await bridge.announced(event)
                log.info("analysis pursued", type=event.type, attempt=analysis.attempt)
        except Exception as error:  # noqa: BLE001 - most likely an outage
            log.warning("analysis waits", reason=reason_of(error))
