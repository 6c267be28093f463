"""Connects the analyzer-bridge's parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from analyzer_bridge import SERVICE
from analyzer_bridge.analysis_server import OPEN_REQUESTS, AnalysisServerClient
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.deadlines import Deadlines
from analyzer_bridge.room import Room
from analyzer_bridge.settings import Settings
from analyzer_bridge.store import AnalysisStore
from analyzer_bridge.subscribers import subscribe
from analyzer_bridge.waiting import Waiting
from chassis.health import health_routes
from chassis.methods import answer_all_methods
from chassis.metrics import metrics_routes
from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from chassis.rabbitmq.connection import RabbitMQ
from chassis.stopping import Stopping


def create_app(settings: Settings) -> FastAPI:
    """Return the service as an ASGI application that works while its lifespan runs."""
    mongodb = MongoDB(str(settings.mongodb_url), MESSAGE_LIMITS)
    analyses = AnalysisStore(mongodb)
    server = AnalysisServerClient(settings)
    room = Room(settings.analysis_in_flight)
    bridge = Bridge(
        analyses,
        server,
        room,
        timeout=timedelta(seconds=settings.analysis_timeout),
        attempts=settings.analysis_attempts,
        version=settings.analysis_version,
    )
    rabbitmq = RabbitMQ(str(settings.rabbitmq_url), prefetch=OPEN_REQUESTS, give_up_after=settings.shutdown_grace)
    subscribe(rabbitmq, bridge)
    deadlines = Deadlines(bridge, analyses, rabbitmq, room)
    waiting = Waiting(bridge, analyses, server, rabbitmq, room)

    async def drain(seconds: float) -> None:
        await deadlines.stop()
        await asyncio.gather(waiting.stop(seconds), rabbitmq.drain(seconds))

    async def warnings() -> list[str]:
        return [*server.warnings(), *waiting.warnings()]

    stopping = Stopping(drain, settings.shutdown_grace)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with server:
            rabbitmq.start()
            deadlines.start()
            waiting.start()
            stopping.watch()
            yield
            await stopping.finish()
            await rabbitmq.stop()
            mongodb.close()

    app = FastAPI(title="Sori analyzer-bridge", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    checks = {
        "accepting": stopping.is_accepting,
        "rabbitmq": rabbitmq.is_up,
        "consumers": rabbitmq.consumes,
        "mongodb": mongodb.is_up,
    }
    app.include_router(health_routes(SERVICE, checks, rabbitmq.dead_letters, [warnings]))
    app.include_router(metrics_routes(rabbitmq.dead_letters))
    answer_all_methods(app)
    return app
