"""Publishes upload.received in the background, so that the user's answer does not wait for the broker."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog

from chassis.errors import reason_of
from chassis.publishing import Publisher
from contracts.events import Event
from gateway.redrive import timing
from gateway.redrive.documents import Redrives

log = structlog.get_logger()

STOP_SECONDS = 1.0
"""How long events that are being published may take when the service stops; what does not end is told again."""


class Publishing:
    """Publishes each event once; what fails is due again in the redrive after a second."""

    def __init__(self, redrives: Redrives, publisher: Publisher, after: timedelta) -> None:
        self._redrives = redrives
        self._publisher = publisher
        self._after = after
        self._tasks: set[asyncio.Task[None]] = set()

    def publish_soon(self, event: Event) -> None:
        """Publish the event of a job that was just inserted, without waiting."""
        task = asyncio.create_task(self._publish(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Wait a moment for what is being published."""
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()

    async def _publish(self, event: Event) -> None:
        try:
            await self._publisher.publish(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the event is told again
            log.warning("event not published yet", job_id=event.subject, reason=reason_of(error))
            await self._hurry(event)

    async def _hurry(self, event: Event) -> None:
        first_look = timing.first_look(event.time, self._after)
        try:
            await self._redrives.hurry(event.subject, first_look, datetime.now(UTC) + timing.AFTER_FAILURE)
        except Exception as error:  # noqa: BLE001 - MongoDB is away too: the job is looked at in time all the same
            log.warning("event is told again later", job_id=event.subject, reason=reason_of(error))
