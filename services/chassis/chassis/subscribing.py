"""What happens to a message that was received: it is done, tried again later, or set aside as a dead letter."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Protocol

import structlog
from structlog.contextvars import bound_contextvars

from chassis.errors import AwayError, reason_of
from chassis.publishing import Publisher
from contracts import events, topology
from contracts.events import Envelope, Event, InvalidEventError

log = structlog.get_logger()


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
    handle: Callable[[Any], Awaitable[None]],
    *,
    on_delay: Callable[[Any, Exception], Event | None] | None = None,
) -> None:
    """Call `handle` with every event of `queue`; what it raises decides how the event is tried again.

    After an AwayError the event waits, for about a day in all (topology.patient_delay), and uses up no try. After any
    other error it is tried MAX_ATTEMPTS times in all. It waits at least the error's `retry_after` seconds, if there is
    one, but never longer than the longest delay. `on_delay` may return an event to publish when `handle` fails; it is
    asked at each failure until it returns one.
    """
    rabbitmq.subscribe(queue, _Subscriber(rabbitmq, service, queue, handle, on_delay).deliver)


class _Subscriber:
    def __init__(
        self,
        rabbitmq: Subscribing,
        service: str,
        queue: topology.Queue,
        handle: Callable[[Any], Awaitable[None]],
        on_delay: Callable[[Any, Exception], Event | None] | None,
    ) -> None:
        self._rabbitmq = rabbitmq
        self._service = service
        self._queue = queue
        self._handle = handle
        self._on_delay = on_delay

    async def deliver(self, message: Message) -> None:
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
        with bound_contextvars(
            job_id=event.subject, event_id=event.id, trace_id=event.trace_id, queue=self._queue.name
        ):
            try:
                await self._handle(event)
            except Exception as error:  # noqa: BLE001 - any failure has one of the outcomes below
                await self._try_later(message, event, error)
            else:
                again = {"redelivered": True} if message.redelivered else {}
                log.info("event handled", type=event.type, **again)

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
        if await self._told_of_delay(message, event, error):
            headers[topology.DELAYED_HEADER] = 1
        log.warning(
            "event will be tried again", reason=reason, attempt=attempt, waits=waits, delay_seconds=delay.seconds
        )
        await self._rabbitmq.pass_on(message, delay.name, self._queue.name, headers)

    async def _told_of_delay(self, message: Message, event: Event, error: Exception) -> bool:
        """Publish the event that `on_delay` returns, unless an earlier try did so; tell whether it was published."""
        if self._on_delay is None or topology.DELAYED_HEADER in message.headers:
            return False
        told = self._on_delay(event, error)
        if told is not None:
            await self._rabbitmq.publish(told)
        return told is not None

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


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _first_failure(message: Message) -> Any:
    return message.headers.get(topology.FIRST_FAILURE_HEADER, _now())


def _attempt(message: Message) -> int:
    return _count(message, topology.ATTEMPT_HEADER, 1)


def _count(message: Message, header: str, otherwise: int) -> int:
    value = message.headers.get(header, otherwise)
    return value if isinstance(value, int) and value > 0 else otherwise
