"""The messages that the analyzer-bridge consumes."""

from analyzer_bridge import SERVICE
from analyzer_bridge.bridge import Bridge
from chassis import subscribing
from chassis.subscribing import Delivery, Subscribing
from contracts import topology
from contracts.events import AnalysisWebhookReceived, AudioStored, Event, JobCancelled, JobExpired, JobPurged


def subscribe(rabbitmq: Subscribing, bridge: Bridge) -> None:
    """Register the analyzer-bridge's subscribers."""

    async def publish(event: Event | None) -> None:
        if event is not None:
            await rabbitmq.publish(event)

    async def on_audio_stored(event: AudioStored, delivery: Delivery) -> None:
        await publish(await bridge.begin(event, delivery))

    async def on_analysis_webhook_received(event: AnalysisWebhookReceived, _: Delivery) -> None:
        await publish(await bridge.finish(event))

    async def on_job_ended(event: JobCancelled | JobExpired, _: Delivery) -> None:
        await bridge.stop(event)

    async def on_job_purged(event: JobPurged, _: Delivery) -> None:
        await publish(await bridge.purged_again(event))
        await publish(await bridge.forget(event))

    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_AUDIO_STORED, on_audio_stored)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_WEBHOOK_RECEIVED, on_analysis_webhook_received)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_CANCELLED, on_job_ended)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_EXPIRED, on_job_ended)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_PURGED, on_job_purged)
