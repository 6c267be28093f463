"""Publishes upload.received: at once when its job is safe, and again when a crash or an outage left it unpublished."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import structlog

from chassis.errors import reason_of
from chassis.periodic import Periodic
from chassis.publishing import Publisher
from contracts import events
from contracts.events import Event, InvalidEventError
from gateway.jobs.documents import Jobs

log = structlog.get_logger()

RELAY_SECONDS = 5.0
AFTER_FAILURE_SECONDS = 1.0
"""Between looks while this process has just failed to publish something itself."""
LEFT_BEHIND = timedelta(seconds=15)
"""The age at which an outbox mark means that its event was left behind; the notifier clears it within a second."""
KNOWN_TO_BE_LEFT = timedelta(seconds=1)
"""The same after a failure: what was accepted in an outage of the broker is published as soon as that is over."""
UNREADABLE_RESTS = timedelta(hours=1)
"""How long a mark that cannot be read is left alone; a newer gateway may have written it, and will relay it."""
STOP_SECONDS = 1.0
"""How long events that are being published may take when the service stops; those that do not end keep their marks."""
RELAY_EVENTS = 500
MAX_RESTING = 5000
"""How many relayed events may still be marked. With so many the notifier is away, and more would only pile up."""
MAX_UNCONFIRMED = 5000
"""How many unconfirmed events are kept in memory; for more than these only the marks remain."""


class Outbox:
    """Publishes in the background, so that the user's answer does not wait for the broker."""

    def __init__(self, jobs: Jobs, publisher: Publisher) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._prepared = False
        self._tasks: set[asyncio.Task[None]] = set()
        # By job: until when a relayed event is not relayed again, which is as long as it has waited so far. A mark that
        # stays means that the notifier is behind, and every repeat makes work for the other services.
        self._resting: dict[str, datetime] = {}
        # By job: events that were not confirmed. Their marks may be cleared although the uploader's queue lacks them,
        # because the notifier's queue had them.
        self._unconfirmed: dict[str, Event] = {}
        self._hurry_until = 0.0
        self._relaying = Periodic(
            self.look,
            seconds=lambda: AFTER_FAILURE_SECONDS if self._hurries else RELAY_SECONDS,
            waiting="relay waits",
            at_once=True,
        )

    def start(self) -> None:
        """Begin to look for what was left behind."""
        self._relaying.start()

    async def stop(self) -> None:
        """Wait a moment for what is being published; the relay of another process takes care of the rest."""
        await self._relaying.stop()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()

    def publish_soon(self, event: Event) -> None:
        """Publish without waiting; the relay tries again what fails."""
        task = asyncio.create_task(self._publish(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def look(self) -> None:
        """Publish what was left behind, up to RELAY_EVENTS."""
        if not self._prepared:
            await self._jobs.prepare()
            self._prepared = True
        older_than = KNOWN_TO_BE_LEFT if self._hurries else LEFT_BEHIND
        now = datetime.now(UTC)
        self._resting = {job_id: until for job_id, until in self._resting.items() if until > now}
        for event in list(self._unconfirmed.values()):
            await self._relay(event, now)
        limit = min(RELAY_EVENTS, MAX_RESTING - len(self._resting))
        if limit <= 0:
            return
        for job_id, body in await self._jobs.unpublished(older_than, list(self._resting), limit):
            try:
                event = events.decode(body)
            except InvalidEventError as error:
                self._resting[job_id] = now + UNREADABLE_RESTS
                log.error("outbox holds what is no event", job_id=job_id, reason=str(error))  # noqa: TRY400 - a traceback adds nothing to the reason
                continue
            await self._relay(event, now)

    @property
    def _hurries(self) -> bool:
        return time.monotonic() < self._hurry_until

    async def _publish(self, event: Event) -> None:
        try:
            await self._publish_confirmed(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the relay tries again
            self._hurry_until = time.monotonic() + LEFT_BEHIND.total_seconds()
            log.warning("event left in the outbox", job_id=event.subject, reason=reason_of(error))

    async def _relay(self, event: Event, now: datetime) -> None:
        await self._publish_confirmed(event)
        self._resting[event.subject] = now + max(LEFT_BEHIND, now - event.time)
        log.info("event relayed from the outbox", job_id=event.subject, type=event.type)

    async def _publish_confirmed(self, event: Event) -> None:
        try:
            await self._publisher.publish(event)
        except Exception:
            if len(self._unconfirmed) < MAX_UNCONFIRMED:
                self._unconfirmed[event.subject] = event
            raise
        self._unconfirmed.pop(event.subject, None)
