"""The messages that the uploader takes in, and the three outcomes of each: done, tried again later, set aside."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog
from faststream.rabbit import RabbitMessage
from structlog.contextvars import bound_contextvars

from contracts import events, topology
from contracts.events import Envelope, Event, InvalidEventError, JobPurged, UploadReceived
from uploader import SERVICE
from uploader.errors import AwayError
from uploader.rabbitmq import RabbitMQ
from uploader.storage import Storage
from uploader.uploads import Uploads

log = structlog.get_logger()


def subscribe(rabbitmq: RabbitMQ, uploads: Uploads, storage: Storage) -> None:
    """Register the uploader's subscribers."""

    async def on_upload_received(event: UploadReceived) -> None:
        await rabbitmq.publish(await uploads.store(event))
        # Later and in batches: a redelivery before then finds audio/, one after it too.
        storage.discard(event.data.inbox_key)

    async def on_job_purged(event: JobPurged) -> None:
        await uploads.purge(event)

    _subscribe(rabbitmq, topology.UPLOADER_UPLOAD_RECEIVED, on_upload_received)
    _subscribe(rabbitmq, topology.UPLOADER_JOB_PURGED, on_job_purged)


def _subscribe(rabbitmq: RabbitMQ, queue: topology.Queue, handle: Callable[[Any], Awaitable[None]]) -> None:
    async def deliver(message: RabbitMessage) -> None:
        deliveries = _count(message, topology.DELIVERIES_HEADER, 0)
        if deliveries >= topology.CRASHES_BEFORE_DEAD_LETTER - 1:
            # The broker would set it aside next, and nobody would be told.
            reason = f"delivered {deliveries} times without an outcome"
            await _set_aside(rabbitmq, queue, message, events.envelope(message.body), reason)
            return
        try:
            event = events.decode(message.body)
            if not isinstance(event, queue.event):
                raise InvalidEventError(f"invalid event: {event.type} in a queue for {queue.event.TYPE}")  # noqa: TRY301 - one place decides
        except InvalidEventError as error:
            await _set_aside(rabbitmq, queue, message, events.envelope(message.body), str(error))
            return
        with bound_contextvars(job_id=event.subject, event_id=event.id, trace_id=event.trace_id, queue=queue.name):
            try:
                await handle(event)
            except Exception as error:  # noqa: BLE001 - any failure has one of the outcomes below
                await _try_later(rabbitmq, queue, message, event, error)
            else:
                again = {"redelivered": True} if message.raw_message.redelivered else {}
                log.info("event handled", type=event.type, **again)

    rabbitmq.subscribe(queue, deliver)


async def _try_later(
    rabbitmq: RabbitMQ, queue: topology.Queue, message: RabbitMessage, event: Event, error: Exception
) -> None:
    attempt, waits = _attempt(message), _count(message, topology.WAITS_HEADER, 0)
    at_least = getattr(error, "retry_after", None) or 0.0
    # What waits for something that is away uses no tries up: it is no fault of the message's.
    patient = isinstance(error, AwayError)
    delay = topology.patient_delay(waits, at_least) if patient else topology.retry_delay(attempt, at_least)
    code = getattr(error, "code", None)
    # Of errors that are not ours only the name: their text may quote what is nobody's business.
    reason = f"{code}: {error}"[:200] if isinstance(code, str) else type(error).__name__
    if delay is None:
        await _set_aside(rabbitmq, queue, message, event, reason)
        return
    now = datetime.now(UTC).isoformat()
    headers: dict[str, Any] = {
        topology.ATTEMPT_HEADER: attempt if patient else attempt + 1,
        topology.WAITS_HEADER: waits + 1 if patient else waits,
        topology.FIRST_FAILURE_HEADER: message.headers.get(topology.FIRST_FAILURE_HEADER, now),
        topology.REASON_HEADER: reason,
    }
    log.warning("event will be tried again", reason=reason, attempt=attempt, waits=waits, delay_seconds=delay.seconds)
    await rabbitmq.pass_on(message, delay.name, queue.name, headers)


async def _set_aside(
    rabbitmq: RabbitMQ, queue: topology.Queue, message: RabbitMessage, event: Event | Envelope | None, reason: str
) -> None:
    now = datetime.now(UTC).isoformat()
    headers = {
        topology.REASON_HEADER: reason,
        topology.ATTEMPT_HEADER: _attempt(message),
        topology.FIRST_FAILURE_HEADER: message.headers.get(topology.FIRST_FAILURE_HEADER, now),
        topology.LAST_FAILURE_HEADER: now,
        topology.SERVICE_VERSION_HEADER: f"{SERVICE} {version(f'sori-{SERVICE}')}",
    }
    log.error("event set aside as a dead letter", reason=reason, queue=queue.name)
    await rabbitmq.pass_on(message, "", queue.dead_name, headers)
    # A hold or its end that is set aside holds up nothing itself, and must not lead to another without end.
    if event is not None and event.type not in {events.JobHeld.TYPE, events.JobResumed.TYPE}:
        held = events.JobHeldData(queue=queue.name, event_id=event.id, event_type=event.type, reason=reason)
        step = topology.held_step(queue.name, event.id, _count(message, topology.REPLAYS_HEADER, 0))
        await rabbitmq.publish(
            events.JobHeld.new(event.subject, held, source=SERVICE, traceparent=event.traceparent, step=step)
        )


def _attempt(message: RabbitMessage) -> int:
    return _count(message, topology.ATTEMPT_HEADER, 1)


def _count(message: RabbitMessage, header: str, otherwise: int) -> int:
    value = message.headers.get(header, otherwise)
    return value if isinstance(value, int) and value > 0 else otherwise
