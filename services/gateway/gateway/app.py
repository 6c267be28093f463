"""Connects the gateway's parts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta

from fastapi import APIRouter, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from chassis import cors
from chassis.audit import Audit
from chassis.clients import Clients
from chassis.health import health_routes
from chassis.identity.identity import Identity
from chassis.methods import answer_all_methods
from chassis.metrics import metrics_routes
from chassis.mongodb import REQUEST_LIMITS, MongoDB
from chassis.quotas.counts import Counts
from chassis.quotas.replicas import Replicas
from chassis.quotas.store import UsageStore
from chassis.rabbitmq.connection import RabbitMQ
from chassis.stopping import Stopping
from contracts.rights import Right
from decoding.decoder import Decoder
from gateway import SERVICE
from gateway.accounts import routes as accounts
from gateway.accounts.access import unlisted
from gateway.accounts.guard import Guard, may_see_details
from gateway.accounts.routes import AccountParts
from gateway.accounts.sessions import Sessions
from gateway.accounts.store import SessionStore
from gateway.availability import Availability
from gateway.catalogue import actors, requests, scripts, tokens
from gateway.catalogue.requests import CatalogueParts
from gateway.catalogue.store import ActorStore, CatalogueStore, ScriptStore, TokenStore
from gateway.document import complete_document
from gateway.jobs import audio as job_audio
from gateway.jobs import routes as jobs
from gateway.jobs.retention import Retention
from gateway.jobs.routes import JobParts
from gateway.jobs.store import JobStore
from gateway.jobs.visible import VisibleJobs
from gateway.person import routes as person
from gateway.person.erasing import Erasing
from gateway.person.routes import PersonParts
from gateway.person.store import ErasureStore, OwnedJobStore
from gateway.redrive.loop import Redrive
from gateway.redrive.metrics import longest_due
from gateway.redrive.store import RedriveStore
from gateway.references import routes as reference_audio
from gateway.references.references import MOST_CPU_SECONDS, References
from gateway.references.routes import ReferenceParts
from gateway.references.store import ReferenceStore
from gateway.references.sweeper import ReferenceSweeper
from gateway.settings import Settings
from gateway.sharing import routes as sharing
from gateway.sharing import shared
from gateway.sharing.links import Links
from gateway.sharing.routes import ShareParts
from gateway.sharing.store import LinkStore
from gateway.storage import Bucket
from gateway.uploads import retries
from gateway.uploads import routes as uploads
from gateway.uploads.claims import ClaimStore
from gateway.uploads.idempotency import Idempotency
from gateway.uploads.inbox_sweeper import InboxSweeper
from gateway.uploads.publishing import Publishing
from gateway.uploads.routes import UploadParts
from gateway.uploads.submissions import Submissions
from gateway.web import problems
from gateway.web.docs import add_docs
from gateway.web.last_answers import LastAnswers
from gateway.web.origins import OwnOrigins
from gateway.web.parts import give
from gateway.web.quotas import JOBS_WAITING, ClientQuotas, limits
from gateway.web.slots import MAX_READERS, MAX_REFERENCES, MAX_UPLOADS, Slots
from gateway.web.trailing_slash import WithoutTrailingSlash
from gateway.webhook import routes as webhook
from gateway.webhook.kept import Webhooks
from gateway.webhook.routes import WebhookParts
from gateway.webhook.store import KeptWebhookStore

FIRST_CONNECTION_SECONDS = 3.0
LAST_ANSWERS_SECONDS = 1.0
"""How long a gateway that was told to stop goes on answering, so that the edge learns of it on each connection."""

Background = InboxSweeper | ReferenceSweeper | Retention | Redrive | Erasing
ROUTERS = (
    uploads.router,
    jobs.router,
    job_audio.router,
    retries.router,
    webhook.router,
    tokens.router,
    reference_audio.router,
    scripts.router,
    actors.router,
    accounts.router,
    person.router,
    sharing.router,
    shared.router,
)


def create_app(settings: Settings) -> ASGIApp:
    """Return the service as an ASGI application that works while its lifespan runs."""
    return cors.allowing(
        WithoutTrailingSlash(OwnOrigins(create_api(settings), settings.origins, exempt=webhook.PATHS)),
        settings.origins,
        methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        exposed=["Location", "Retry-After", "Content-Language", "Accept-Ranges", "Content-Range", "ETag", *cors.LIMITS],
    )


def create_api(settings: Settings) -> FastAPI:
    """Return the routes with what they need; also what the public OpenAPI document is made from."""
    bucket = Bucket(settings)
    mongodb = MongoDB(str(settings.mongodb_url), REQUEST_LIMITS)
    rabbitmq = RabbitMQ(str(settings.rabbitmq_url))
    availability = Availability({"S3": bucket.is_up, "MongoDB": mongodb.is_up, "RabbitMQ": rabbitmq.is_up})
    job_store, records = JobStore(mongodb), ReferenceStore(mongodb)
    proxies = settings.proxies
    identity = Identity(settings, mongodb, anonymous=[Right.CATALOGUE_READ] if settings.catalogue_public else [])
    session_store = SessionStore(mongodb)
    sessions = Sessions(session_store, identity.own_tokens)
    visible = VisibleJobs(job_store, Audit(mongodb))
    counts = Counts(limits(settings))
    replicas = Replicas(SERVICE, counts, UsageStore(mongodb, counts.limits), {JOBS_WAITING: job_store.waiting})
    quotas = ClientQuotas(counts, proxies)
    catalogue = CatalogueStore(mongodb)
    addresses = settings.catalogue_addresses
    # References come rarely: its process is started when the first one does.
    decoder = Decoder(1, settings.max_audio_seconds, MOST_CPU_SECONDS)
    token_store, script_store, actor_store = TokenStore(catalogue), ScriptStore(catalogue), ActorStore(catalogue)
    references = References(token_store, records, bucket, decoder, addresses)
    after = timedelta(seconds=settings.redrive_after)
    submissions = Submissions(bucket, job_store, references, after)
    claims = ClaimStore(mongodb)
    idempotency = Idempotency(claims, job_store, submissions)
    redrives, kept_webhooks = RedriveStore(mongodb), KeptWebhookStore(mongodb)
    links = LinkStore(mongodb)
    redrive = Redrive(redrives, kept_webhooks, rabbitmq, after, kept=[links])
    publishing = Publishing(redrives, rabbitmq, after)
    webhooks = Webhooks(kept_webhooks, rabbitmq, availability)
    max_age = timedelta(seconds=settings.inbox_max_age)
    owned = OwnedJobStore(mongodb)
    erasing = Erasing(
        ErasureStore(mongodb),
        owned,
        job_store,
        session_store,
        claims,
        # The sweeper aborts uploads of that age; it may take as long again until it looks.
        longest_upload=2 * max_age,
        look_soon=redrive.look_soon,
    )
    background = (
        InboxSweeper(bucket, job_store, max_age),
        ReferenceSweeper(records, bucket, max_age),
        Retention(job_store, settings.retention),
        redrive,
        erasing,
    )
    stopping = _stopping(background, settings.shutdown_grace)
    max_bytes, max_result = settings.max_upload_bytes, settings.max_result_bytes
    upload_slots, reader_slots = Slots(MAX_UPLOADS), Slots(MAX_READERS)

    app = _api(
        _lifespan(
            bucket,
            mongodb,
            rabbitmq,
            identity=identity,
            replicas=replicas,
            decoder=decoder,
            publishing=publishing,
            background=background,
            stopping=stopping,
        )
    )
    give(
        app,
        UploadParts(
            submissions, idempotency, publishing, visible, bucket, availability, upload_slots, quotas, max_bytes
        ),
        JobParts(job_store, visible, bucket, redrive.look_soon, availability, reader_slots),
        WebhookParts(job_store, webhooks, availability, settings.webhook_secrets, max_result),
        CatalogueParts(token_store, script_store, actor_store, availability, addresses),
        ReferenceParts(references, bucket, availability, Slots(MAX_REFERENCES), reader_slots, quotas, max_bytes),
        AccountParts(identity, sessions, visible),
        PersonParts(identity, owned, erasing, bucket, availability, reader_slots, replicas),
        ShareParts(Links(links), job_store, visible, bucket, availability, reader_slots),
    )
    checks = {
        "accepting": stopping.is_accepting,
        "rabbitmq": rabbitmq.is_up,
        "mongodb": mongodb.is_up,
        "s3": bucket.is_up,
    }
    told = [redrive.warnings, identity.warnings]
    health = health_routes(SERVICE, checks, rabbitmq.dead_letters, told, may_see_details)
    _include(app, [health, metrics_routes(rabbitmq.dead_letters, longest_due(redrives))])
    answer_all_methods(app)
    app.add_middleware(Guard, identity=identity, sessions=sessions, quotas=quotas, origins=settings.origins)
    app.add_middleware(Clients, proxies=proxies)
    app.add_middleware(LastAnswers, stopping=stopping)
    return app


def _api(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """Return the routes; what they work with is given to the application later."""
    app = FastAPIOffline(
        title="Sori",
        version="1",
        docs_url=None,  # web.docs has a stricter one
        description="Keep a catalogue of tokens; upload a recording of one, watch its progress, read the result.",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    add_docs(app)
    _include(app, ROUTERS)
    problems.handle_errors(app)
    requests.handle_errors(app)
    complete_document(app)
    return app


def _include(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Add the routes; RuntimeError when nothing says who may call one of them."""
    if missing := unlisted(routers):
        raise RuntimeError(f"gateway.accounts.access says nothing of {missing}")
    for router in routers:
        app.include_router(router)


def _stopping(background: Sequence[Background], grace_seconds: float) -> Stopping:
    async def drain(_: float) -> None:
        for part in background:
            await part.stop()
        await asyncio.sleep(LAST_ANSWERS_SECONDS)

    return Stopping(drain, grace_seconds)


def _lifespan(
    bucket: Bucket,
    mongodb: MongoDB,
    rabbitmq: RabbitMQ,
    *,
    identity: Identity,
    replicas: Replicas,
    decoder: Decoder,
    publishing: Publishing,
    background: Sequence[Background],
    stopping: Stopping,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with bucket:
            identity.start()
            replicas.start()
            rabbitmq.start()
            # What comes before the broker was reached can only be told later.
            await rabbitmq.first_connected(FIRST_CONNECTION_SECONDS)
            for part in background:
                part.start()
            stopping.watch()
            yield
            await stopping.finish()
            await publishing.stop()
            await rabbitmq.stop()
            await identity.stop()
            await replicas.stop()
            mongodb.close()
            decoder.stop()

    return lifespan
