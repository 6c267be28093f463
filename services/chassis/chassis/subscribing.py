"""What happens to a message that was received: it is done, tried again later, or set aside as a dead letter."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import structlog
from prometheus_client import Counter
from structlog.contextvars import bound_contextvars

from chassis.errors import AwayError, reason_of
from chassis.publishing import Publisher
from contracts import events, topology
from contracts.events import Envelope, Event, InvalidEventError

log = structlog.get_logger()


REDRIVES_DROPPED = Counter(
    "sori_redriven_messages_dropped", "Repeats that failed; what is not done is told again.", ["queue"]
)


@dataclass(frozen=True)
class Delivery:
    """How a message came."""

    redriven: bool = False
    """It repeats what was told before, because nothing has come of that yet."""
    repeated: bool = False
    """This very message has been here before: an earlier try may have had its effect, in part or whole."""


Handle = Callable[[Any, Delivery], Awaitable[None]]


class Message(Protocol):
    """A message as the broker delivers it."""

    body: bytes
    headers: Any

    @property
    def redelivered(self) -> bool | None:
        """Whether the broker has delivered it before."""


class Subscribing(Publisher, Protocol):
    """What a subscriber needs from the broker; `chassis.rabbitmq.connection.RabbitMQ` implements it."""

    def subscribe(self, queue: topology.Queue, deliver: Callable[[Any], Awaitable[None]]) -> None:
        """Call `deliver` with every message of `queue`; acknowledge when it returns, requeue when it raises."""

    async def pass_on(self, message: Any, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a received message again elsewhere, with these headers added; same guarantee as `publish`."""


def subscribe(
    rabbitmq: Subscribing,
    service: str,
    queue: topology.Queue,
    handle: Handle,
) -> None:
    """Call `handle` with every event of `queue`, and how it came; what it raises decides how it is tried again.

    After an AwayError the event waits, for about a day in all (topology.patient_delay), and uses up no try. After any
    other error it is tried MAX_ATTEMPTS times in all. It waits at least the error's `retry_after` seconds, if there is
    one, but never longer than the longest delay. A redriven event is tried once, and is dropped when that fails.
    """
    rabbitmq.subscribe(queue, _Subscriber(rabbitmq, service, queue, handle).deliver)


class _Subscriber:
    def __init__(
        self,
        rabbitmq: Subscribing,
        service: str,
        queue: topology.Queue,
        handle: Handle,
    ) -> None:
        self._rabbitmq = rabbitmq
        self._service = service
        self._queue = queue
        self._handle = handle

    async def deliver(self, message: Message) -> None:
        if topology.REDRIVE_HEADER in message.headers:
            await self._deliver_once(message)
        else:
            await self._deliver_until_done(message)

    async def _deliver_once(self, message: Message) -> None:
        """Drop the message if it fails: whoever told it again looks at its job again."""
        if message.redelivered:
            # The try before never ended: the message may be what kills its subscriber.
            self._drop("tried before without an outcome")
            return
        try:
            event = self._decoded(message)
            with self._bound(event):
                await self._handle(event, Delivery(redriven=True))
                log.info("redriven event handled", type=event.type)
        except Exception as error:  # noqa: BLE001 - whatever failed, the next redrive tries again
            self._drop(reason_of(error))

    def _drop(self, reason: str) -> None:
        REDRIVES_DROPPED.labels(self._queue.name).inc()
        log.warning("redriven event dropped", reason=reason, queue=self._queue.name)

    async def _deliver_until_done(self, message: Message) -> None:
        deliveries = _count(message, topology.DELIVERIES_HEADER, 0)
        if deliveries >= topology.CRASHES_BEFORE_DEAD_LETTER - 1:
            # Next, the broker itself would dead-letter the message, and nobody would be told.
            reason = f"delivered {deliveries} times without an outcome"
            await self._set_aside(message, events.envelope(message.body), reason)
            return
        try:
            event = self._decoded(message)
        except InvalidEventError as error:
            await self._set_aside(message, events.envelope(message.body), str(error))
            return
        with self._bound(event):
            try:
                await self._handle(event, Delivery(repeated=_is_repeated(message)))
            except Exception as error:  # noqa: BLE001 - any failure has one of the outcomes below
                await self._try_later(message, event, error)
            else:
                again = {"redelivered": True} if message.redelivered else {}
                log.info("event handled", type=event.type, **again)

    def _bound(self, event: Event) -> AbstractContextManager[None]:
        """Name the event in every log line of its handling."""
        ids = {"job_id": event.subject, "event_id": event.id, "trace_id": event.trace_id}
        return bound_contextvars(**ids, queue=self._queue.name)

    def _decoded(self, message: Message) -> Event:
        event = events.decode(message.body)
        if not isinstance(event, self._queue.event):
            raise InvalidEventError(f"invalid event: {event.type} in a queue for {self._queue.event.TYPE}")
        return event

    async def _try_later(self, message: Message, event: Event, error: Exception) -> None:
        attempt, waits = _attempt(message), _count(message, topology.WAITS_HEADER, 0)
        at_least = getattr(error, "retry_after", None) or 0.0
        # Waiting for a back end that is away uses up no tries: the message is not at fault.
        patient = isinstance(error, AwayError)
        delay = topology.patient_delay(waits, at_least) if patient else topology.retry_delay(attempt, at_least)
        reason = reason_of(error)
        if delay is None:
            await self._set_aside(message, event, reason)
            return
        headers: dict[str, Any] = {
            topology.ATTEMPT_HEADER: attempt if patient else attempt + 1,
            topology.WAITS_HEADER: waits + 1 if patient else waits,
            topology.FIRST_FAILURE_HEADER: _first_failure(message),
            topology.REASON_HEADER: reason,
        }
        log.warning(
            "event will be tried again", reason=reason, attempt=attempt, waits=waits, delay_seconds=delay.seconds
        )
        await self._rabbitmq.pass_on(message, delay.name, self._queue.name, headers)

    async def _set_aside(self, message: Message, event: Event | Envelope | None, reason: str) -> None:
        headers = {
            topology.REASON_HEADER: reason,
            topology.ATTEMPT_HEADER: _attempt(message),
            topology.FIRST_FAILURE_HEADER: _first_failure(message),
            topology.LAST_FAILURE_HEADER: _now(),
            topology.SERVICE_VERSION_HEADER: f"{self._service} {version(f'sori-{self._service}')}",
        }
        log.error("event set aside as a dead letter", reason=reason, queue=self._queue.name)
        await self._rabbitmq.pass_on(message, "", self._queue.dead_name, headers)
        # Do not publish `job.held` about a `job.held` message: that would never end.
        if event is not None and event.type not in {events.JobHeld.TYPE, events.JobResumed.TYPE}:
            held = events.JobHeldData(queue=self._queue.name, event_id=event.id, event_type=event.type, reason=reason)
            step = topology.held_step(self._queue.name, event.id, _count(message, topology.REPLAYS_HEADER, 0))
            await self._rabbitmq.publish(
                events.JobHeld.new(event.subject, held, source=self._service, traceparent=event.traceparent, step=step)
            )


def _is_repeated(message: Message) -> bool:
    """Tell whether the broker has delivered it before, or it is back from a retry queue or the dead letters."""
    tried = (topology.ATTEMPT_HEADER, topology.WAITS_HEADER, topology.REPLAYS_HEADER)
    return bool(message.redelivered) or any(header in message.headers for header in tried)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _first_failure(message: Message) -> Any:
    return message.headers.get(topology.FIRST_FAILURE_HEADER, _now())


def _attempt(message: Message) -> int:
    return _count(message, topology.ATTEMPT_HEADER, 1)


def _count(message: Message, header: str, otherwise: int) -> int:
    value = message.headers.get(header, otherwise)
    return value if isinstance(value, int) and value > 0 else otherwise
