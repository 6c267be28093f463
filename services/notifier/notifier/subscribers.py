"""The messages that the notifier consumes: every event about a job, and the progress that other replicas report."""

from collections.abc import Callable
from typing import Protocol

from chassis import subscribing
from chassis.subscribing import Delivery, Subscribing
from contracts import events, topology
from contracts.events import AnalysisRemoved, AudioRemoved, Event, JobProgressed
from notifier import SERVICE
from notifier.hub import Hub
from notifier.partitions import Bindings
from notifier.progress import Progress

FAN_OUT_QUEUE = "notifier.progress"


class FanOut(Bindings, Protocol):
    """Reaches the replicas that listen; `chassis.rabbitmq.fan_out.FanOut` implements it."""

    async def tell(self, event: Event, key: str) -> None:
        """Publish to every replica that is bound to `key`; the event may be lost in an outage."""


class Broker(Subscribing, Protocol):
    """The broker as the notifier needs it; `chassis.rabbitmq.connection.RabbitMQ` implements it."""

    def fan_out(
        self, exchange: str, prefix: str, deliver: Callable[[str, bytes], None], on_connected: Callable[[], None]
    ) -> FanOut:
        """Call `deliver` with the subject and body of every message whose key was bound."""


def subscribe(rabbitmq: Broker, progress: Progress, hub: Hub) -> Bindings:
    """Register the notifier's subscribers: one for every event, and one for the progress that replicas report.

    The latter is given what is told of jobs in the partitions that are bound.
    """

    def on_job_progressed(job_id: str, body: bytes) -> None:
        # Of a partition, most jobs have no listeners here: what is told of them need not be decoded.
        if hub.listens(job_id):
            event = events.decode(body)
            if isinstance(event, JobProgressed):
                hub.deliver(job_id, event.data)

    fan_out = rabbitmq.fan_out(topology.PROGRESS_EXCHANGE, FAN_OUT_QUEUE, on_job_progressed, hub.refresh)

    async def on_event(event: Event, _: Delivery) -> None:
        progressed = await progress.record(event)
        if progressed is not None:
            await fan_out.tell(progressed, topology.partition(progressed.subject))

    async def on_removed(event: Event, delivery: Delivery) -> None:
        # Tell open streams of the end first: afterwards they cannot read the job any more.
        await on_event(event, delivery)
        await progress.forget_if_removed(event.subject)

    for queue in topology.NOTIFIER_QUEUES:
        removed = queue.event in (AudioRemoved, AnalysisRemoved)
        subscribing.subscribe(rabbitmq, SERVICE, queue, on_removed if removed else on_event)
    return fan_out
