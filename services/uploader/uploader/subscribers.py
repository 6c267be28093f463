"""The messages that the uploader consumes."""

from chassis import subscribing
from chassis.subscribing import Delivery, Subscribing
from contracts import topology
from contracts.events import AudioStored, JobPurged, UploadReceived
from uploader import SERVICE
from uploader.uploads import ObjectStore, Uploads


def subscribe(rabbitmq: Subscribing, uploads: Uploads, storage: ObjectStore) -> None:
    """Register the uploader's subscribers."""

    async def on_upload_received(event: UploadReceived, delivery: Delivery) -> None:
        told = await (uploads.store_again(event) if delivery.redriven else uploads.store(event))
        if told is None:
            return
        await rabbitmq.publish(told, redriven=delivery.redriven and isinstance(told, AudioStored))
        if isinstance(told, AudioStored):
            # The inbox object is deleted later, in a batch. The message may be redelivered before that or after it: the
            # recording is in audio/ in both cases. One that was rejected stays, to be rejected again if that is lost;
            # the gateway's sweeper removes it.
            storage.discard(event.data.inbox_key)

    async def on_job_purged(event: JobPurged, _: Delivery) -> None:
        told = await uploads.purge(event)
        if told is not None:
            await rabbitmq.publish(told)

    subscribing.subscribe(rabbitmq, SERVICE, topology.UPLOADER_UPLOAD_RECEIVED, on_upload_received)
    subscribing.subscribe(rabbitmq, SERVICE, topology.UPLOADER_JOB_PURGED, on_job_purged)
