"""Connects the parts: settings in, one FastAPI application with its lifespan out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from analysis_server.accepted import Accepted
from analysis_server.health import health_routes
from analysis_server.jobs import JobsInHand
from analysis_server.references import References
from analysis_server.routes import BodyLimit, analysis_routes, answer_with_problems
from analysis_server.settings import Settings
from analysis_server.storage import Bucket
from analysis_server.webhook import Webhook
from analysis_server.workers import Workers
from chassis.methods import answer_all_methods
from contracts.addresses import Addresses

_log = structlog.get_logger()


def create_app(settings: Settings) -> FastAPI:
    """Return the analysis server; its workers and clients live as long as the application's lifespan."""
    storage = Bucket(settings)
    workers = Workers(settings.workers, settings.max_audio_seconds, settings.max_analysis_seconds)
    callbacks = Webhook(settings.webhook_attempts)
    addresses = Addresses(settings.s3_bucket_name, settings.s3_endpoint_url)
    references = References(storage, addresses, workers, settings)
    jobs = JobsInHand(
        storage,
        Accepted(storage, settings),
        references,
        workers,
        callbacks,
        limit=settings.max_jobs,
        at_once=settings.workers,
        max_audio_bytes=settings.max_audio_bytes,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with storage, callbacks:
            await workers.start()
            jobs.start()
            _log.info("started", workers=settings.workers, bucket=settings.s3_bucket_name)
            try:
                yield
            finally:
                await jobs.stop(settings.stop_seconds)
                await asyncio.to_thread(workers.stop)
                _log.info("stopped")

    app = FastAPI(title="Sori analysis server", lifespan=lifespan)
    answer_with_problems(app)
    app.add_middleware(BodyLimit)
    app.include_router(analysis_routes(jobs, addresses))
    app.include_router(health_routes(storage, workers, jobs))
    answer_all_methods(app)
    return app
