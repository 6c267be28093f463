"""The messages that the notifier consumes: every event about a job, and the progress that other replicas report."""

from chassis import subscribing
from chassis.rabbitmq.connection import RabbitMQ
from chassis.subscribing import Delivery
from contracts import events, topology
from contracts.events import AnalysisRemoved, AudioRemoved, Event, JobProgressed
from notifier import SERVICE
from notifier.hub import Hub
from notifier.progress import Progress

FAN_OUT_QUEUE = "notifier.progress"


def subscribe(rabbitmq: RabbitMQ, progress: Progress, hub: Hub) -> None:
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
