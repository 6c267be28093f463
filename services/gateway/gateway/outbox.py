"""Publishes upload.received: at once when its job is safe, and again when a crash or an outage left it unpublished."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from contracts import events
from contracts.events import Event, InvalidEventError

log = structlog.get_logger()

RELAY_SECONDS = 5.0
AFTER_FAILURE_SECONDS = 1.0
"""Between looks while this process has just failed to publish something itself."""
LEFT_BEHIND = timedelta(seconds=15)
"""The age at which an outbox mark means that something was left; the notifier clears it within a second."""
KNOWN_TO_BE_LEFT = timedelta(seconds=1)
"""The same while it has: what was accepted in an outage of the broker goes out as soon as that is over."""
NO_EVENT_RESTS = timedelta(hours=1)
"""How long a mark is left alone that cannot be read; perhaps a newer gateway wrote it, and will relay it."""
STOP_SECONDS = 1.0
"""How long what is being published may take when the service stops; whatever does not end keeps its mark."""
RELAY_EVENTS = 500
MAX_RESTING = 5000
"""Relayed events whose marks still stand; with so many the notifier is away, and more would only pile up."""
MAX_UNCONFIRMED = 5000
"""Events kept in memory until they are confirmed; of more than these the marks alone tell."""


class Jobs(Protocol):
    """The job documents with their outbox marks."""

    async def prepare(self) -> None:
        """Create the indexes."""

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        """Return events that are still marked, each with its job's id, but for those of the jobs `besides`."""


class Publisher(Protocol):
    """The broker."""

    async def publish(self, event: Event) -> None:
        """Return once the event is safe."""


class Outbox:
    """Publishes in the background, so that the user's answer does not wait for the broker."""

    def __init__(self, jobs: Jobs, publisher: Publisher) -> None:
        self._jobs = jobs
        self._publisher = publisher
        self._tasks: set[asyncio.Task[None]] = set()
        # Relayed, and not to be relayed again before: as long again as the event has waited so far. A mark that stays
        # means that the notifier is behind, and each repeat makes work for everybody else.
        self._resting: dict[str, datetime] = {}
        # By job. The notifier's queue may have such an event, which clears the mark, and the uploader's may not: only a
        # confirmation says that both do.
        self._unconfirmed: dict[str, Event] = {}
        self._hurry_until = 0.0
        self._relay: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look for what was left behind."""
        self._relay = asyncio.create_task(self._run_relay())

    async def stop(self) -> None:
        """Let what is being published end, for a moment at most; the relay of another process takes up the rest."""
        if self._relay is not None:
            self._relay.cancel()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
            for task in unfinished:
                task.cancel()

    def publish_soon(self, event: Event) -> None:
        """Publish without waiting; the relay tries again what fails."""
        task = asyncio.create_task(self._publish(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _publish(self, event: Event) -> None:
        try:
            await self._publish_confirmed(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the relay goes on
            self._hurry_until = time.monotonic() + LEFT_BEHIND.total_seconds()
            log.warning("event left in the outbox", job_id=event.subject, reason=type(error).__name__)

    async def _run_relay(self) -> None:
        prepared = False
        while True:
            try:
                if not prepared:
                    await self._jobs.prepare()
                    prepared = True
                await self._relay_once(KNOWN_TO_BE_LEFT if self._hurries else LEFT_BEHIND)
            except Exception as error:  # noqa: BLE001 - an outage: the next round tries again
                log.warning("relay waits", reason=type(error).__name__)
            await asyncio.sleep(AFTER_FAILURE_SECONDS if self._hurries else RELAY_SECONDS)

    @property
    def _hurries(self) -> bool:
        return time.monotonic() < self._hurry_until

    async def _relay_once(self, older_than: timedelta) -> None:
        now = datetime.now(UTC)
        self._resting = {job_id: until for job_id, until in self._resting.items() if until > now}
        for event in list(self._unconfirmed.values()):
            await self._relay_event(event, now)
        limit = min(RELAY_EVENTS, MAX_RESTING - len(self._resting))
        if limit <= 0:
            return
        for job_id, body in await self._jobs.unpublished(older_than, list(self._resting), limit):
            try:
                event = events.decode(body)
            except InvalidEventError as error:
                self._resting[job_id] = now + NO_EVENT_RESTS
                log.error("outbox holds what is no event", job_id=job_id, reason=str(error))  # noqa: TRY400 - the reason is all there is
                continue
            await self._relay_event(event, now)

    async def _relay_event(self, event: Event, now: datetime) -> None:
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
