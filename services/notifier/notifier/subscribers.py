"""The messages that the notifier consumes: every event about a job, and the progress that other replicas report."""

from collections.abc import Callable
from typing import Protocol

from chassis import subscribing
from chassis.subscribing import Delivery, Subscribing
from contracts import events, topology
from contracts.events import AnalysisRemoved, AudioRemoved, Event, JobProgressed
from notifier import SERVICE
from notifier.hub import Hub
from notifier.progress import Progress

FAN_OUT_QUEUE = "notifier.progress"


class FanOut(Protocol):
    """Reaches every replica."""

    async def tell(self, event: Event) -> None:
        """Publish to every replica that listens; the event may be lost in an outage."""


class Broker(Subscribing, Protocol):
    """The broker as the notifier needs it; `chassis.rabbitmq.connection.RabbitMQ` implements it."""

    def fan_out(
        self, exchange: str, prefix: str, deliver: Callable[[str, bytes], None], on_connected: Callable[[], None]
    ) -> FanOut:
        """Call `deliver` with the routing key and body of every message on a fan-out exchange."""


def subscribe(rabbitmq: Broker, progress: Progress, hub: Hub) -> None:
    """Register the notifier's subscribers: one for every event, and one for the progress that replicas report."""

    def on_job_progressed(job_id: str, body: bytes) -> None:
        # The routing key is the job's id, so events that nobody here listens to need not be decoded.
        if hub.listens(job_id):
            event = events.decode(body)
            if isinstance(event, JobProgressed):
                hub.deliver(job_id, event.data)

    fan_out = rabbitmq.fan_out(topology.PROGRESS_EXCHANGE, FAN_OUT_QUEUE, on_job_progressed, hub.refresh)

    async def on_event(event: Event, _: Delivery) -> None:
        progressed = await progress.record(event)
        if progressed is not None:
            await fan_out.tell(progressed)

    async def on_removed(event: Event, delivery: Delivery) -> None:
        # Tell open streams of the end first: afterwards they cannot read the job any more.
        await on_event(event, delivery)
        await progress.forget_if_removed(event.subject)

    for queue in topology.NOTIFIER_QUEUES:
        removed = queue.event in (AudioRemoved, AnalysisRemoved)
        subscribing.subscribe(rabbitmq, SERVICE, queue, on_removed if removed else on_event)
