"""The routes of a person's own data: who one is, scores, and an export that gives back all that it holds."""

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import cast
from zipfile import ZipFile

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from chassis.clients import Proxies
from chassis.errors import AwayError
from chassis.identity.caller import ANYBODY, Caller, Kind
from chassis.identity.identity import Identity
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS
from chassis.quotas.replicas import Replicas
from contracts.rights import Right, Role, rights_of
from gateway import storage
from gateway.availability import Availability
from gateway.person import routes
from gateway.person.erasing import Erasing
from gateway.person.routes import PersonParts
from gateway.web.callers import STATE, read_caller
from gateway.web.parts import give
from gateway.web.problems import handle_errors
from gateway.web.quotas import ClientQuotas
from gateway.web.slots import Slots
from tests.support.answers import assert_problem
from tests.support.gateway_stores import Claims, Erasures, Jobs, OwnedJobs
from tests.support.usage import Usage
from tests.unit.gateway.test_export import OWNER, Store, job

PERSON = Caller(Kind.PERSON, rights_of([Role.LEARNER]), OWNER, frozenset([Role.LEARNER]))


class Login:
    """Whether a login is required."""

    is_required = True
    forgotten = 0

    def forget(self) -> None:
        self.forgotten += 1


class Sessions:
    """No sessions at all."""

    async def end_all(self, *_: object) -> None:
        """Do nothing."""


async def up() -> bool:
    return True


class World:
    """The routes over stand-ins; `caller` is who asks."""

    def __init__(self) -> None:
        self.jobs, self.store, self.erasures, self.login = Jobs(job(1), job(2)), Store(200_000), Erasures(), Login()
        self.caller = PERSON
        self.owned = OwnedJobs(self.jobs)
        erasing = Erasing(
            self.erasures,
            self.owned,
            self.jobs,
            Sessions(),
            Claims(),
            longest_upload=timedelta(hours=1),
            look_soon=lambda: None,
        )
        bucket = cast("storage.Bucket", self.store)
        identity = cast("Identity", self.login)
        back_ends = Availability({"S3": up, "MongoDB": up})
        self.counts = Counts({REQUESTS: 10, STREAMS: 3})
        self.replicas = Replicas("gateway", self.counts, Usage())
        self.app = FastAPI()
        give(self.app, PersonParts(identity, self.owned, erasing, bucket, back_ends, Slots(1), self.replicas))
        self.app.dependency_overrides[read_caller] = lambda: self.caller
        self.app.include_router(routes.router)
        handle_errors(self.app)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url="http://gateway") as made:
        yield made


async def test_everybody_is_told_who_they_are(world: World, client: httpx.AsyncClient) -> None:
    assert (await client.get("/me")).json() == {
        "login_required": True,
        "kind": "person",
        "owner": OWNER,
        "roles": ["learner"],
        "rights": ["catalogue:read", "jobs:own"],
        "limits": [],
    }
    world.caller, world.login.is_required = ANYBODY, False
    anybody = (await client.get("/me")).json()
    assert anybody == {"login_required": False, "kind": "anybody", "roles": [], "rights": sorted(Right), "limits": []}


async def test_one_is_told_how_much_one_has_used(world: World) -> None:
    quotas = ClientQuotas(world.counts, Proxies([]))

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        await quotas.serve(world.app, {**scope, STATE: world.caller}, receive, send)

    transport = httpx.ASGITransport(counted)
    async with httpx.AsyncClient(transport=transport, base_url="http://sori") as counted_client:
        requests, streams = (await counted_client.get("/me")).json()["limits"]
    resets_at = datetime.fromisoformat(requests.pop("resets_at"))
    assert datetime.now(UTC) < resets_at <= datetime.now(UTC) + timedelta(minutes=1)
    assert requests == {"name": "requests", "used": 1, "of": 10}
    assert streams == {"name": "streams", "used": 0, "of": 3}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/scores"), ("GET", "/export"), ("HEAD", "/export"), ("DELETE", "")]
)
async def test_where_nobody_logs_in_nothing_is_anybodys(
    world: World, client: httpx.AsyncClient, method: str, path: str
) -> None:
    world.caller = ANYBODY
    answer = await client.request(method, f"/me{path}")
    assert answer.status_code == 409
    if method != "HEAD":
        assert_problem(answer, 409, "login_off")


async def test_a_page_of_scores_leads_to_the_next(world: World, client: httpx.AsyncClient) -> None:
    for number, token_id in ((3, "a&b"), (4, "c")):
        one = job(number)
        scores = {"overall": 50.0 + number, "scripts": []}
        kept = one.model_validate({**one.model_dump(by_alias=True), "scores": scores, "token_id": token_id})
        world.jobs.kept[one.job_id] = kept
    first = (await client.get("/me/scores?limit=1")).json()
    second = (await client.get(first["next"])).json()
    assert [page["tokens"][0]["token_id"] for page in (first, second)] == ["a&b", "c"]
    assert second["tokens"][0]["best"]["score"] == 54
    assert "next" not in second


async def test_an_export_is_a_file_and_gives_its_slot_back(world: World, client: httpx.AsyncClient) -> None:
    for _ in range(2):
        answer = await client.get("/me/export")
        assert answer.status_code == 200
        assert answer.headers["content-disposition"] == 'attachment; filename="sori-export.zip"'
        assert answer.headers["cache-control"] == "no-store"
        assert len(ZipFile(io.BytesIO(answer.content)).namelist()) == 5
    assert (await client.head("/me/export")).headers["content-type"] == "application/zip"


async def test_an_export_that_cannot_begin_is_a_problem_and_frees_its_slot(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise AwayError("MongoDB", "down")

    with monkeypatch.context() as broken:
        broken.setattr(world.owned, "page", away)
        assert_problem(await client.get("/me/export"), 503, "unavailable")
    assert (await client.get("/me/export")).status_code == 200


async def test_a_reader_who_goes_away_ends_the_export_and_frees_its_slot(
    world: World, client: httpx.AsyncClient
) -> None:
    gone = asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        if world.store.open:
            gone.set()
            await asyncio.Event().wait()  # this reader takes no more

    scope = {
        **{"type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET"},
        **{"path": "/me/export", "raw_path": b"/me/export", "query_string": b"", "headers": [], "app": world.app},
    }
    await world.app(scope, receive, send)
    assert gone.is_set()
    assert world.store.open == 0
    assert (await client.get("/me/export")).status_code == 200


async def test_a_deletion_is_noted_before_it_is_answered(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.delete("/me")
    assert answer.status_code == 202
    assert world.erasures.kept[OWNER][0].asked_at.isoformat() == answer.json()["asked_at"].replace("Z", "+00:00")
    assert world.login.forgotten == 1
    world.erasures.failures = 1
    assert_problem(await client.delete("/me"), 503, "unavailable")
