"""Connects the notifier's parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp

from chassis import cors
from chassis.audit import Audit
from chassis.clients import Clients
from chassis.health import health_routes
from chassis.identity.identity import Identity
from chassis.methods import answer_all_methods
from chassis.metrics import metrics_routes
from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS
from chassis.quotas.replicas import Replicas
from chassis.quotas.store import UsageStore
from chassis.rabbitmq.connection import RabbitMQ
from chassis.stopping import Stopping
from contracts import problems
from notifier import SERVICE
from notifier.admission import Admission
from notifier.caller_checks import CallerChecks
from notifier.expiry import Expiry
from notifier.hub import Hub
from notifier.partitions import Partitions
from notifier.progress import Progress
from notifier.settings import Settings
from notifier.store import JobStore
from notifier.streams import ProgressStreams, problem_response
from notifier.subscribers import subscribe
from notifier.tickets import TicketStore

PREFETCH = 32


def create_app(settings: Settings) -> ASGIApp:
    """Return the service as an ASGI application that works while its lifespan runs."""
    mongodb = MongoDB(str(settings.mongodb_url), MESSAGE_LIMITS)
    jobs = JobStore(mongodb)
    identity = Identity(settings, mongodb)
    hub = Hub(jobs)
    rabbitmq = RabbitMQ(str(settings.rabbitmq_url), prefetch=PREFETCH, give_up_after=settings.shutdown_grace)
    partitions = Partitions(subscribe(rabbitmq, Progress(jobs), hub), hub.listened)
    callers = CallerChecks(hub, identity)
    proxies = settings.proxies
    counts = Counts({REQUESTS: settings.limit_requests, STREAMS: settings.limit_streams})
    replicas = Replicas(SERVICE, counts, UsageStore(mongodb, counts.limits))
    expiry = Expiry(jobs, rabbitmq, timedelta(seconds=settings.job_max_age))

    async def drain(seconds: float) -> None:
        await asyncio.gather(expiry.stop(), rabbitmq.drain(seconds), hub.end_streams(seconds))

    stopping = Stopping(drain, settings.shutdown_grace)

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        identity.start()
        rabbitmq.start()
        hub.start()
        partitions.start()
        callers.start()
        replicas.start()
        expiry.start()
        stopping.watch()
        yield
        await stopping.finish()
        hub.stop()
        await callers.stop()
        await replicas.stop()
        await partitions.stop()
        await rabbitmq.stop()
        await identity.stop()
        mongodb.close()

    health = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    checks = {
        "accepting": stopping.is_accepting,
        "rabbitmq": rabbitmq.is_up,
        "consumers": rabbitmq.consumes,
        "mongodb": mongodb.is_up,
    }
    health.include_router(health_routes(SERVICE, checks, rabbitmq.dead_letters, [identity.warnings]))
    health.include_router(metrics_routes(rabbitmq.dead_letters))
    health.add_exception_handler(404, _not_found)
    answer_all_methods(health)
    streams = ProgressStreams(
        hub,
        partitions,
        jobs,
        Admission(identity, TicketStore(mongodb), Audit(mongodb)),
        counts=counts,
        proxies=proxies,
    )
    routes = [
        Route("/tokens/analysis-progress/{job_id}", endpoint=streams),
        Route("/tokens/analysis-progress/{job_id}/", endpoint=streams),
        Mount("/", health),
    ]
    return cors.allowing(
        Clients(Router(routes, redirect_slashes=False, lifespan=lifespan), proxies),
        settings.origins,
        methods=["GET", "HEAD"],
        exposed=["Retry-After", "Content-Language", *cors.LIMITS],
    )


async def _not_found(request: Request, _: Exception) -> Response:
    return problem_response(request, problems.NOT_FOUND)
