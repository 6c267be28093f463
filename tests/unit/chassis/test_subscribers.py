"""What every subscriber does with a message that cannot be handled, whichever service it is in."""

from typing import Any

import pytest
from prometheus_client import REGISTRY

from chassis.errors import AwayError
from chassis.subscribing import Delivery, subscribe
from contracts import topology
from contracts.events import Event, JobHeld
from tests.support.queues import Message, Queues
from tests.unit import stories

QUEUES = {
    "uploader": topology.UPLOADER_UPLOAD_RECEIVED,
    "analyzer-bridge": topology.BRIDGE_AUDIO_STORED,
    "notifier": next(queue for queue in topology.NOTIFIER_QUEUES if queue.event is JobHeld),
}
EVENTS = {"uploader": stories.received(), "analyzer-bridge": stories.stored(), "notifier": stories.HOLDS[0]}


class Service:
    """One service's subscriber for one queue, whose handler raises `error`."""

    def __init__(self, name: str) -> None:
        self.queue = QUEUES[name]
        self.event = EVENTS[name]
        self.rabbitmq = Queues()
        self.error: Exception | None = None
        self.handled = 0
        self.deliveries: list[Delivery] = []
        subscribe(self.rabbitmq, name, self.queue, self._handle)

    async def _handle(self, _: Event, delivery: Delivery) -> None:
        self.handled += 1
        self.deliveries.append(delivery)
        if self.error is not None:
            raise self.error

    async def give(self, **headers: int) -> tuple[str, str, dict[str, Any]] | None:
        """Deliver the event with these headers; gives where it was passed on to, if it was."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.rabbitmq.put(self.queue, self.event, **named)
        await self.rabbitmq.handle_next()
        return self.rabbitmq.passed[-1] if self.rabbitmq.passed else None


@pytest.fixture(params=list(QUEUES))
def service(request: pytest.FixtureRequest) -> Service:
    return Service(request.param)


async def test_what_is_away_uses_no_tries_up(service: Service) -> None:
    service.error = AwayError("S3", "gone")
    passed = await service.give(x_sori_attempt=topology.MAX_ATTEMPTS - 1, x_sori_waits=100)
    assert passed is not None
    assert passed[0] in {delay.name for delay in topology.RETRY_DELAYS}
    assert passed[2][topology.ATTEMPT_HEADER] == topology.MAX_ATTEMPTS - 1
    assert passed[2][topology.WAITS_HEADER] == 101


async def test_but_nothing_waits_for_ever(service: Service) -> None:
    service.error = AwayError("S3", "gone")
    passed = await service.give(x_sori_waits=topology.MAX_WAITS)
    assert passed is not None
    assert passed[1] == service.queue.dead_name


async def test_the_text_of_a_strangers_error_is_told_to_nobody(service: Service) -> None:
    service.error = ValueError("somebody's secret")
    passed = await service.give()
    assert passed is not None
    assert passed[2][topology.REASON_HEADER] == "ValueError"


async def test_a_message_that_keeps_killing_its_subscriber_is_set_aside_before_the_broker_does_it_without_a_word(
    service: Service,
) -> None:
    passed = await service.give(x_delivery_count=topology.CRASHES_BEFORE_DEAD_LETTER - 1)
    assert passed is not None
    assert passed[1] == service.queue.dead_name
    assert passed[2][topology.REASON_HEADER].startswith("delivered 49 times")
    assert service.handled == 0


async def test_a_hold_that_is_set_aside_does_not_lead_to_another(service: Service) -> None:
    service.error = ValueError()
    await service.give(x_sori_attempt=topology.MAX_ATTEMPTS)
    holds = [event for event in service.rabbitmq.published if isinstance(event, JobHeld)]
    assert len(holds) == (0 if isinstance(service.event, JobHeld) else 1)


@pytest.mark.parametrize("error", [ValueError("no"), AwayError("S3", "gone")])
async def test_a_redriven_message_is_tried_once(service: Service, error: Exception) -> None:
    service.error = error
    dropped = REGISTRY.get_sample_value("sori_redriven_messages_dropped_total", {"queue": service.queue.name}) or 0.0
    assert await service.give(x_sori_redrive=1) is None
    assert service.handled == 1
    assert not service.rabbitmq.queued
    assert not service.rabbitmq.published, "nothing is held: the next redrive tries again"
    counted = REGISTRY.get_sample_value("sori_redriven_messages_dropped_total", {"queue": service.queue.name})
    assert counted == dropped + 1


async def test_a_redriven_message_that_is_no_event_is_dropped(service: Service) -> None:
    service.rabbitmq.queued.append(Message(service.queue.name, b"{}", "an id", headers={topology.REDRIVE_HEADER: 1}))
    await service.rabbitmq.handle_next()
    assert (service.handled, service.rabbitmq.passed, service.rabbitmq.dead) == (0, [], [])


@pytest.mark.parametrize(
    ("headers", "delivery"),
    [
        ({}, Delivery()),
        ({"x_sori_redrive": 1}, Delivery(redriven=True)),
        ({"x_sori_attempt": 2}, Delivery(repeated=True)),
        ({"x_sori_waits": 1}, Delivery(repeated=True)),
        ({"x_sori_replays": 1}, Delivery(repeated=True)),
    ],
)
async def test_a_handler_knows_how_a_message_came(
    service: Service, headers: dict[str, int], delivery: Delivery
) -> None:
    await service.give(**headers)
    assert service.deliveries == [delivery]


async def test_a_message_that_was_not_acknowledged_has_been_here_before(service: Service) -> None:
    service.rabbitmq.queued.append(Message(service.queue.name, service.event.encode(), "an id", redelivered=True))
    await service.rabbitmq.handle_next()
    assert service.deliveries == [Delivery(repeated=True)]


async def test_a_redriven_message_that_may_have_killed_its_subscriber_is_dropped(service: Service) -> None:
    body = service.event.encode()
    headers = {topology.REDRIVE_HEADER: 1}
    service.rabbitmq.queued.append(Message(service.queue.name, body, "an id", headers=headers, redelivered=True))
    await service.rabbitmq.handle_next()
    assert (service.handled, service.rabbitmq.passed, service.rabbitmq.dead) == (0, [], [])
