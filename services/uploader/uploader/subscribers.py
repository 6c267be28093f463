"""The messages that the uploader consumes."""

from chassis import subscribing
from chassis.rabbitmq.connection import RabbitMQ
from contracts import topology
from contracts.events import UploadReceived
from uploader import SERVICE
from uploader.storage import Bucket
from uploader.uploads import Uploads


def subscribe(rabbitmq: RabbitMQ, uploads: Uploads, bucket: Bucket) -> None:
    """Register the uploader's subscribers."""

    async def on_upload_received(event: UploadReceived) -> None:
        await rabbitmq.publish(await uploads.store(event))
        # The inbox object is deleted later, in a batch. The message may be redelivered before that or after it: the
        # recording is in audio/ in both cases.
        bucket.discard(event.data.inbox_key)

    subscribing.subscribe(rabbitmq, SERVICE, topology.UPLOADER_UPLOAD_RECEIVED, on_upload_received)
    subscribing.subscribe(rabbitmq, SERVICE, topology.UPLOADER_JOB_PURGED, uploads.purge)
