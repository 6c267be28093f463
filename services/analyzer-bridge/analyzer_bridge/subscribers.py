"""The messages that the analyzer-bridge consumes."""

from analyzer_bridge import SERVICE
from analyzer_bridge.bridge import Bridge, delayed
from analyzer_bridge.errors import AnalysisNotTakenError
from chassis import subscribing
from chassis.subscribing import Subscribing
from contracts import topology
from contracts.events import AnalysisWebhookReceived, AudioStored, Event, JobPurged


def subscribe(rabbitmq: Subscribing, bridge: Bridge) -> None:
    """Register the analyzer-bridge's subscribers."""

    async def publish(event: Event | None) -> None:
        if event is not None:
            await rabbitmq.publish(event)

    async def on_audio_stored(event: AudioStored) -> None:
        await publish(await bridge.begin(event))

    async def on_analysis_webhook_received(event: AnalysisWebhookReceived) -> None:
        await publish(await bridge.finish(event))

    async def on_job_purged(event: JobPurged) -> None:
        await publish(await bridge.purged_again(event))
        await bridge.forget(event)

    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_AUDIO_STORED, on_audio_stored, on_delay=_delayed)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_WEBHOOK_RECEIVED, on_analysis_webhook_received)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_CANCELLED, bridge.stop)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_EXPIRED, bridge.stop)
    subscribing.subscribe(rabbitmq, SERVICE, topology.BRIDGE_JOB_PURGED, on_job_purged)


def _delayed(event: AudioStored, error: Exception) -> Event | None:
    """Return the event that tells listeners of the delay; None when it is not the analysis server that causes it."""
    return delayed(event) if isinstance(error, AnalysisNotTakenError) else None
