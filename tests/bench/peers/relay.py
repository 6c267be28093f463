"""The least that a durable, event-driven service does with an upload; run as `python -m tests.bench.peers.relay`.

One process: the gateway's own S3 put, one MongoDB insert (majority, journalled), one event through a quorum queue of
RabbitMQ (persistent, confirmed, acknowledged), and the result on an open stream. It decodes nothing, asks for no
analysis, and keeps streams in memory. Its HTTP surface is the part of Sori's that the load client uses.
"""

import asyncio
import json
import os
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import uvloop
from aiohttp import web
from pymongo import AsyncMongoClient, WriteConcern

from chassis.settings import S3Settings
from gateway.storage import Bucket

QUEUE = "bench.relay"
PREFIX = "bench-relay-"
_BODY_LIMIT_BYTES = 64 * 1024 * 1024


class Relay:
    """The one process; its jobs' ends are futures in its memory."""

    def __init__(self, bucket: Bucket, jobs: Any, channel: aio_pika.abc.AbstractChannel) -> None:
        self._bucket = bucket
        self._jobs = jobs
        self._channel = channel
        self._ends: defaultdict[str, asyncio.Future[bytes]] = defaultdict(asyncio.get_running_loop().create_future)

    async def upload(self, request: web.Request) -> web.Response:
        """Put, insert, publish; then answer 202."""
        recording = _file_of(await request.read())
        job_id, token_id = str(uuid.uuid4()), request.match_info["token_id"]
        key = f"{PREFIX}{job_id}"
        await self._bucket.write(key, _chunks(recording))
        job = {"_id": job_id, "token_id": token_id, "s3_audio_url": f"s3://{os.environ['S3_BUCKET_NAME']}/{key}"}
        await self._jobs.insert_one(job)
        message = aio_pika.Message(json.dumps(job).encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await self._channel.default_exchange.publish(message, routing_key=QUEUE)
        return web.json_response({"job_id": job_id}, status=202)

    async def on_event(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        """End the job that the event is about."""
        job = json.loads(message.body)
        result = {"video_id": job["token_id"], "s3_audio_url": job["s3_audio_url"]}
        self._ends[job["_id"]].set_result(json.dumps({"status": "completed", "result": result}).encode())
        await message.ack()

    async def progress(self, request: web.Request) -> web.StreamResponse:
        """Stream the job's end when it comes."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        job_id = request.match_info["job_id"]
        end = await self._ends[job_id]
        del self._ends[job_id]
        await answer.write(b"data: " + end + b"\n\n")
        return answer


def _file_of(form: bytes) -> bytes:
    """The one file of a form."""
    return form[form.index(b"\r\n\r\n") + 4 : form.rindex(b"\r\n--")]


async def _chunks(recording: bytes) -> AsyncIterator[bytes]:
    yield recording


async def _serve() -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(os.environ["MONGODB_URL"])
    jobs = client.bench.get_collection("relay", write_concern=WriteConcern(w="majority", j=True))
    async with await aio_pika.connect(os.environ["RABBITMQ_URL"]) as rabbitmq, Bucket(S3Settings()) as bucket:
        channel = await rabbitmq.channel()
        await channel.set_qos(64)
        queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        relay = Relay(bucket, jobs, channel)
        await queue.consume(relay.on_event)
        app = web.Application(client_max_size=_BODY_LIMIT_BYTES)
        app.router.add_post("/tokens/{token_id}/upload-audio", relay.upload)
        app.router.add_get("/tokens/analysis-progress/{job_id}", relay.progress)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, os.environ["HOST"], int(os.environ["PORT"])).start()
        await asyncio.Event().wait()  # a signal ends the process


if __name__ == "__main__":
    uvloop.run(_serve())
