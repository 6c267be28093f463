"""Share links: what they show to whom and for how long, and that their secrets are kept and logged nowhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from chassis.audit import Audit
from chassis.errors import AwayError
from chassis.identity.caller import ANYBODY, Caller, Kind
from contracts.job import Job, Status
from contracts.rights import Role, rights_of
from gateway import storage
from gateway.audio import StoredAudio
from gateway.availability import Availability
from gateway.jobs.removals import Ending
from gateway.jobs.visible import VisibleJobs
from gateway.sharing import routes, shared
from gateway.sharing.links import MOST_LINKS, Links
from gateway.sharing.routes import ShareParts
from gateway.web.callers import read_caller
from gateway.web.parts import give
from gateway.web.problems import handle_errors
from gateway.web.slots import MAX_READERS, Slots
from tests.support.answers import assert_problem
from tests.support.gateway_stores import Jobs, ShareLinks
from tests.unit.stories import JOB_ID, TOKEN_ID, new_job

BODY = b"sound"
PRIVATE = {"cache-control": "private, no-store", "referrer-policy": "no-referrer"}


class Bucket:
    """S3 with one recording."""

    async def find_audio(self, job_id: str) -> StoredAudio:
        return StoredAudio(f"audio/{job_id}.wav", len(BODY), "audio/wav", '"1"')

    @asynccontextmanager
    async def read(self, _: StoredAudio, first: int, last: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async def chunks() -> AsyncIterator[bytes]:
            yield BODY[first : last + 1]

        yield chunks()


async def up() -> bool:
    return True


class World:
    """The routes over stand-ins; `caller` is who asks."""

    def __init__(self) -> None:
        view = new_job().view.model_copy(update={"s3_url": f"s3://sori/audio/{JOB_ID}.wav"})
        self.job: Job = new_job().model_copy(
            update={
                "view": view,
                "owner": "user:" + "a" * 32,
                "filename": "my-name.wav",
                "metadata_json": '{"user": "me"}',
            }
        )
        self.jobs, self.kept, self.caller = Jobs(self.job), ShareLinks(), ANYBODY
        self.app = FastAPI()
        back_ends = Availability({"S3": up, "MongoDB": up})
        visible, bucket = VisibleJobs(self.jobs, cast(Audit, None)), cast("storage.Bucket", Bucket())
        give(self.app, ShareParts(Links(self.kept), self.jobs, visible, bucket, back_ends, Slots(MAX_READERS)))
        self.app.dependency_overrides[read_caller] = lambda: self.caller
        self.app.include_router(routes.router)
        self.app.include_router(shared.router)
        handle_errors(self.app)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def client(world: World) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as made:
        yield made


async def link(client: httpx.AsyncClient, **asked: object) -> dict[str, Any]:
    answer = await client.post(f"/jobs/{JOB_ID}/links", json=asked)
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def has(answer: httpx.Response, headers: dict[str, str]) -> bool:
    return headers.items() <= dict(answer.headers).items()


async def test_a_link_shows_the_state_and_not_whose_it_is(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.get((await link(client))["url"])
    assert answer.status_code == 200
    assert has(answer, PRIVATE)
    assert answer.json().keys() == {
        *("status", "stage", "token_id", "progress", "message", "created_at", "updated_at"),
    }
    assert answer.json()["token_id"] == TOKEN_ID
    for secret in (JOB_ID, "my-name", "user", "s3://", str(world.job.owner)):
        assert secret not in answer.text


async def test_the_result_is_shown_as_it_is_kept(world: World, client: httpx.AsyncClient) -> None:
    view = world.job.view.model_copy(update={"status": Status.COMPLETED, "progress": 100})
    world.jobs.kept[JOB_ID] = world.job.model_copy(update={"view": view, "result_json": '{"score":87.5}'})
    assert (await client.get((await link(client))["url"])).json()["result"] == {"score": 87.5}


async def test_a_link_to_the_result_alone_gives_no_sound(client: httpx.AsyncClient) -> None:
    made = await link(client, right="result")
    assert "audio_url" not in (await client.get(made["url"])).json()
    for method in ("GET", "HEAD"):
        refused = await client.request(method, made["url"] + "/audio")
        assert refused.status_code == 404
        assert has(refused, PRIVATE)


async def test_a_link_to_the_audio_gives_it_whole_and_in_ranges(client: httpx.AsyncClient) -> None:
    made = await link(client, right="audio")
    address = (await client.get(made["url"])).json()["audio_url"]
    whole, part = await client.get(address), await client.get(address, headers={"Range": "bytes=1-2"})
    assert (whole.status_code, whole.content) == (200, BODY)
    assert (part.status_code, part.content) == (206, BODY[1:3])
    head = await client.head(address)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(BODY)))
    assert all(has(answer, PRIVATE) for answer in (whole, part, head))
    names = {answer.headers["content-disposition"] for answer in (whole, part, head)}
    assert names == {'inline; filename="recording.wav"'}, "not what the user called it"


async def test_a_list_has_no_secret_and_a_revoked_link_shows_nothing(world: World, client: httpx.AsyncClient) -> None:
    first, second = await link(client), await link(client, right="audio", expires_in=60)
    listed = (await client.get(f"/jobs/{JOB_ID}/links")).json()["links"]
    assert [one["id"] for one in listed] == [first["id"], second["id"]]
    assert all(one.keys() == {"id", "right", "created_at", "expires_at"} for one in listed)
    secret = first["url"].removeprefix("/shared/")
    assert len(secret) >= 43
    assert secret not in repr(world.kept.kept)
    revoked = await client.delete(f"/jobs/{JOB_ID}/links/{first['id']}")
    assert revoked.status_code == 204
    assert_problem(await client.get(first["url"]), 404, "link_not_found")
    assert (await client.get(second["url"])).status_code == 200
    assert_problem(await client.delete(f"/jobs/{JOB_ID}/links/{first['id']}"), 404, "link_not_found")


async def test_a_link_is_good_for_as_long_as_was_asked(world: World, client: httpx.AsyncClient) -> None:
    made = await link(client, expires_in=60)
    assert await in_seconds(made) == pytest.approx(60, abs=5)
    assert await in_seconds(await link(client)) == pytest.approx(7 * 24 * 3600, abs=5)
    world.kept.kept = [
        one.model_copy(update={"expires_at": datetime.now(UTC) - timedelta(seconds=1)}) for one in world.kept.kept
    ]
    assert_problem(await client.get(made["url"]), 404, "link_not_found")
    assert (await client.get(f"/jobs/{JOB_ID}/links")).json() == {"links": []}


async def in_seconds(made: dict[str, Any]) -> float:
    return (datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    "asked",
    [
        {"expires_in": 0},
        {"expires_in": 366 * 24 * 3600},
        {"expires_in": True},
        {"expires_in": "60"},
        {"right": "all"},
        {"for": 1},
    ],
)
async def test_what_cannot_be_asked_for_is_refused(client: httpx.AsyncClient, asked: dict[str, object]) -> None:
    assert_problem(await client.post(f"/jobs/{JOB_ID}/links", json=asked), 422, "request_invalid")


async def test_a_job_has_a_bound_of_links_also_when_they_are_made_at_once(
    world: World, client: httpx.AsyncClient
) -> None:
    answers = await asyncio.gather(*(client.post(f"/jobs/{JOB_ID}/links", json={}) for _ in range(MOST_LINKS + 5)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    while len(world.kept.kept) < MOST_LINKS:
        await link(client)
    assert_problem(await client.post(f"/jobs/{JOB_ID}/links", json={}), 409, "too_many_links")
    assert len(world.kept.kept) == MOST_LINKS
    assert (await client.delete(f"/jobs/{JOB_ID}/links/{world.kept.kept[0].link_id}")).status_code == 204
    await link(client)


async def test_somebody_elses_job_can_neither_be_shared_nor_its_links_seen(
    world: World, client: httpx.AsyncClient
) -> None:
    made = await link(client)
    world.caller = Caller(Kind.PERSON, rights_of([Role.EDITOR]), owner="user:" + "b" * 32)
    path = f"/jobs/{JOB_ID}/links"
    for method, address in (("POST", path), ("GET", path), ("DELETE", f"{path}/{made['id']}")):
        answer = await client.request(method, address, json={} if method == "POST" else None)
        assert_problem(answer, 404, "job_not_found")
    assert (await client.get(made["url"])).status_code == 200, "the address itself needs nobody's login"


async def test_the_link_of_a_job_that_is_to_be_purged_shows_nothing(world: World, client: httpx.AsyncClient) -> None:
    made = await link(client, right="audio")
    await world.jobs.ask_end(Ending.PURGE, [JOB_ID], datetime.now(UTC))
    assert_problem(await client.get(made["url"]), 404, "link_not_found")
    assert (await client.get(made["url"] + "/audio")).status_code == 404


async def test_a_link_that_is_made_while_its_job_is_purged_is_removed_again(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = world.kept.insert

    async def purged_first(made: Any) -> None:
        await world.jobs.ask_end(Ending.PURGE, [JOB_ID], datetime.now(UTC))
        await world.kept.forget([JOB_ID])
        await insert(made)

    monkeypatch.setattr(world.kept, "insert", purged_first)
    assert_problem(await client.post(f"/jobs/{JOB_ID}/links", json={}), 404, "job_not_found")
    assert world.kept.kept == []


@pytest.mark.parametrize("error", [AwayError("MongoDB", "down"), RuntimeError("a fault")])
async def test_no_failure_logs_the_secret(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    made = await link(client)
    secret = made["url"].removeprefix("/shared/")

    async def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(world.kept, "find", fails)
    with capture_logs() as logs:
        answer = await client.get(made["url"])
    assert answer.status_code in {500, 503}
    assert secret not in repr(logs) + repr(get_contextvars())
    assert secret not in answer.text
