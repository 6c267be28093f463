"""Connects the gateway's parts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts import api
from contracts.problems import Problem
from gateway import SERVICE
from gateway.availability import Availability
from gateway.catalogue_store import Actors, Catalogue, Scripts, Tokens
from gateway.errors import handle_errors
from gateway.health import health_routes
from gateway.idempotency import Idempotency
from gateway.outbox import Outbox
from gateway.rabbitmq import RabbitMQ
from gateway.reference_store import ReferenceRecords
from gateway.reference_sweeper import ReferenceSweeper
from gateway.references import References
from gateway.removals import Retention
from gateway.routes.actors import actor_routes
from gateway.routes.audio import audio_routes
from gateway.routes.jobs import reading_routes, removal_routes, retry_routes
from gateway.routes.places import MAX_READERS, MAX_UPLOADS, Places
from gateway.routes.references import reference_routes
from gateway.routes.scripts import script_routes
from gateway.routes.tokens import token_routes
from gateway.routes.uploads import upload_routes
from gateway.routes.webhook import webhook_routes
from gateway.settings import Settings
from gateway.stopping import Stopping
from gateway.storage import Storage
from gateway.store import Claims, Jobs, connected
from gateway.submissions import Submissions
from gateway.sweeper import Sweeper

FIRST_CONNECTION_SECONDS = 3.0
LAST_ANSWERS_SECONDS = 1.0
"""How long a gateway that was told to stop goes on answering, so that the edge learns of it on each connection."""


def create_app(settings: Settings) -> ASGIApp:
    """Return the service as an ASGI application that works while its lifespan runs."""
    return CORSMiddleware(
        _WithoutTrailingSlash(create_api(settings)),
        allow_origins=settings.origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Location", "Retry-After", "Content-Language", "Accept-Ranges", "Content-Range", "ETag"],
        max_age=600,
    )


def create_api(settings: Settings) -> FastAPI:
    """Return the routes with what they need; also what the public OpenAPI document is made from."""
    storage = Storage(settings)
    mongodb = connected(str(settings.mongodb_url))
    jobs = Jobs(mongodb)
    rabbitmq = RabbitMQ(str(settings.rabbitmq_url))
    outbox = Outbox(jobs, rabbitmq)
    sweeper = Sweeper(storage, jobs, timedelta(seconds=settings.inbox_max_age))
    retention = Retention(jobs, rabbitmq, settings.retention)
    back_ends = Availability({"S3": storage.is_up, "MongoDB": jobs.is_up, "RabbitMQ": rabbitmq.is_up})
    catalogue = Catalogue(mongodb)
    tokens = Tokens(catalogue)
    records = ReferenceRecords(mongodb)
    references = References(tokens, records, storage, settings.s3_bucket_name)
    reference_sweeper = ReferenceSweeper(records, storage, timedelta(seconds=settings.inbox_max_age))
    submissions = Submissions(storage, jobs, references)
    uploads, readers = Places(MAX_UPLOADS), Places(MAX_READERS)

    async def drain(_: float) -> None:
        await sweeper.stop()
        await reference_sweeper.stop()
        await retention.stop()
        await asyncio.sleep(LAST_ANSWERS_SECONDS)

    stopping = Stopping(drain, settings.shutdown_grace)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with storage:
            rabbitmq.start()
            # An analysis server calls its webhook once: better not to open the doors before it can be taken in.
            await rabbitmq.first_connected(FIRST_CONNECTION_SECONDS)
            outbox.start()
            sweeper.start()
            reference_sweeper.start()
            retention.start()
            stopping.watch()
            yield
            await stopping.finish()
            await outbox.stop()
            await rabbitmq.stop()
            mongodb.close()

    app = FastAPIOffline(
        title="Sori",
        version="1",
        description="Keep a catalogue of tokens; upload a recording of one, watch its progress, read the result.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    idempotency = Idempotency(Claims(mongodb), jobs, submissions)
    routers = (
        upload_routes(settings, submissions, idempotency, outbox, back_ends=back_ends, places=uploads),
        reading_routes(jobs),
        audio_routes(jobs, storage, back_ends, readers),
        removal_routes(jobs, rabbitmq, back_ends),
        retry_routes(jobs, storage, submissions, outbox, back_ends),
        webhook_routes(settings, jobs, rabbitmq, back_ends),
        token_routes(tokens, back_ends),
        reference_routes(settings, references, storage, back_ends=back_ends, uploads=uploads, readers=readers),
        script_routes(tokens, Scripts(catalogue), back_ends),
        actor_routes(tokens, Actors(catalogue), back_ends),
    )
    for router in routers:
        app.include_router(router)
    checks = {
        "accepting": stopping.is_accepting,
        "rabbitmq": rabbitmq.is_up,
        "mongodb": jobs.is_up,
        "s3": storage.is_up,
    }
    app.include_router(health_routes(SERVICE, checks, rabbitmq.dead_letters))
    handle_errors(app)
    app.add_middleware(_LastAnswers, stopping=stopping)
    _complete_document(app)
    return app


def _complete_document(app: FastAPI) -> None:
    """Show the notifier's streams in the document too: to a front end there is one origin and one API."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        document = generated()
        schemas = document["components"]["schemas"]
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"), Problem=problem)
        document["paths"][api.PROGRESS_PATH] = api.PROGRESS_STREAM
        # FastAPI adds its own validation error to every call with parameters; ours are problem bodies.
        for operation in (operation for path in document["paths"].values() for operation in path.values()):
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way to extend its document


class _LastAnswers:
    """Ends the edge's connections with an answer on each: one that is closed while it rests may meet a request."""

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start" and self._stopping.has_begun:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_last if scope["type"] == "http" else send)


class _WithoutTrailingSlash:
    """Takes /path/ for /path; a redirect would make the client send its upload twice."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/":
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)
