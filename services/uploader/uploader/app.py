"""Connects the uploader's parts."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from chassis.health import health_routes
from chassis.methods import answer_all_methods
from chassis.metrics import metrics_routes
from chassis.rabbitmq.connection import RabbitMQ
from chassis.stopping import Stopping
from decoding.decoder import Decoder
from uploader import SERVICE
from uploader.settings import Settings
from uploader.storage import Bucket
from uploader.subscribers import subscribe
from uploader.uploads import Uploads

PREFETCH = 8
"""Recordings in hand at once; each may hold a temporary file of up to the size of an upload."""


def create_app(settings: Settings) -> FastAPI:
    """Return the service as an ASGI application that works while its lifespan runs."""
    bucket = Bucket(settings)
    decoder = Decoder(len(os.sched_getaffinity(0)), settings.max_audio_seconds)
    rabbitmq = RabbitMQ(str(settings.rabbitmq_url), prefetch=PREFETCH, give_up_after=settings.shutdown_grace)
    uploads = Uploads(bucket, decoder)
    subscribe(rabbitmq, uploads, bucket)
    stopping = Stopping(rabbitmq.drain, settings.shutdown_grace)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with bucket:
            await decoder.start()
            rabbitmq.start()
            stopping.watch()
            yield
            await stopping.finish()
            await rabbitmq.stop()
            decoder.stop()

    app = FastAPI(title="Sori uploader", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    checks = {
        "accepting": stopping.is_accepting,
        "rabbitmq": rabbitmq.is_up,
        "consumers": rabbitmq.consumes,
        "s3": bucket.is_up,
    }
    app.include_router(health_routes(SERVICE, checks, rabbitmq.dead_letters))
    app.include_router(metrics_routes(rabbitmq.dead_letters))
    answer_all_methods(app)
    return app
