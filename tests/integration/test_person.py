"""A person's own data, with a login: taken along, and deleted for certain, whoever is killed right after."""

import asyncio
import io
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from joserfc.jwk import ECKey
from pymongo import AsyncMongoClient

from chassis.identity.own_tokens import SESSION, OwnTokens
from contracts import events
from contracts.accounts import SESSION_COOKIE, ApiKey, Session, key_sha256, new_key
from contracts.job import Job
from contracts.rights import Right, Role
from local_stack.stack import Stack
from tests.contract.service_process import SERVICES, ServiceProcess
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.databases import own_database
from tests.support.events import Story
from tests.support.sori import RECORDING
from tests.support.waiting import until

(GATEWAY,) = (service for service in SERVICES if service.name == "gateway")
OWNER, OTHER = "user:" + uuid.uuid4().hex, "user:" + uuid.uuid4().hex
KEYS = json.dumps({"keys": [ECKey.generate_key("P-256", {"kid": "1"}).as_dict(private=True)]})


def owned(owner: str, began: datetime) -> dict[str, Any]:
    """A job document whose upload began then."""
    event = Story(str(uuid.uuid4())).upload_received()
    job = Job.received(event, None).model_copy(update={"owner": owner, "began_at": began})
    return job.model_dump(by_alias=True, exclude={"upload_received"})


class World:
    """Gateways that ask for a login, on a database of their own."""

    def __init__(self, stack: Stack, url: str, database: Any, folder: Path) -> None:
        self.database = database
        self._settings = {**stack.settings, "MONGODB_URL": url, "AUTH": "required", "SESSION_KEYS": KEYS}
        self._folder = folder
        self._count = 0

    @asynccontextmanager
    async def gateway(self) -> AsyncIterator[ServiceProcess]:
        """One, once it is ready."""
        self._count += 1
        async with ServiceProcess.running(GATEWAY, self._settings, self._folder / f"log-{self._count}") as process:
            for door in process.doors.values():
                await door.open()
            async with httpx.AsyncClient(trust_env=False) as client:

                async def ready() -> bool:
                    answer = await process.health(client)
                    return answer is not None and answer.status_code == 200

                await until(ready, "a gateway that is ready")
            yield process

    async def token(self, owner: str = OWNER) -> str:
        """The token of a new session."""
        now = datetime.now(UTC)
        session = Session(
            session_id=uuid.uuid4().hex,
            owner=owner,
            roles=[Role.LEARNER],
            created_at=now,
            expires_at=now + timedelta(1),
        )
        await self.database["sessions"].insert_one(session.model_dump(by_alias=True))
        return OwnTokens(KEYS).sign(SESSION, session.expires_at, sid=session.session_id, sub=owner)


@pytest.fixture
async def world(stack: Stack, tmp_path: Path) -> AsyncIterator[World]:
    async with own_database(stack) as url, AsyncMongoClient[dict[str, Any]](url, tz_aware=True) as mongodb:
        yield World(stack, url, mongodb.get_default_database(), tmp_path)


async def test_it_is_done_though_the_gateway_is_killed_right_after_its_answer(world: World, broker: Broker) -> None:
    now = datetime.now(UTC)
    mine = [owned(OWNER, now) for _ in range(5)]
    others = [owned(OTHER, now), owned("key:" + "a" * 32, now)]
    await world.database["jobs"].insert_many([*mine, *others])
    headers = {"Authorization": f"Bearer {await world.token()}"}
    async with broker.overhearing() as heard, httpx.AsyncClient(trust_env=False, headers=headers) as client:
        async with world.gateway() as process:
            # With the broker out of reach, this one cannot tell anything of what it promises.
            await process.doors["rabbitmq"].shut()
            answer = await client.delete(f"{process.url}/me")
            assert answer.status_code == 202, answer.text
        # Left in the middle of the block, the process was killed.
        assert all(not heard.of(one["_id"]) for one in mine)
        asked_at = datetime.fromisoformat(answer.json()["asked_at"])
        async with world.gateway() as process:
            for one in mine:
                await heard.until(one["_id"], events.JobPurged)
            # An upload that was under way is a job only now; another began later.
            under_way, later = owned(OWNER, asked_at), owned(OWNER, asked_at + timedelta(seconds=1))
            await world.database["jobs"].insert_many([later, under_way])
            await heard.until(under_way["_id"], events.JobPurged)
            listed = await client.get(f"{process.url}/jobs")
            assert listed.status_code == 401, "the session has ended"
            fresh = {"Authorization": f"Bearer {await world.token()}"}
            listed = await client.get(f"{process.url}/jobs", headers=fresh)
            assert [one["job_id"] for one in listed.json()["jobs"]] == [later["_id"]]
        assert all(not heard.of(one["_id"]) for one in [*others, later])


async def test_a_person_takes_along_what_is_kept_of_them(world: World, bucket: Bucket) -> None:
    mine, other = owned(OWNER, events.now()), owned(OTHER, events.now())
    mine |= {"result_json": '{"overall_score":87.5}', "scores": {"overall": 87.5, "scripts": []}}
    mine["view"] |= {"status": "completed", "s3_url": f"s3://sori/audio/{mine['_id']}.wav"}
    await world.database["jobs"].insert_many([mine, other])
    await bucket.put(f"audio/{mine['_id']}.wav", RECORDING)
    headers = {"Authorization": f"Bearer {await world.token()}"}
    async with (
        world.gateway() as process,
        httpx.AsyncClient(trust_env=False, headers=headers, base_url=process.url) as client,
    ):

        async def export() -> bytes | None:
            answer = await client.get("/me/export")
            return answer.content if answer.status_code == 200 and answer.content else None

        archive = ZipFile(io.BytesIO(await until(export, "an export")))
        assert archive.testzip() is None
        assert archive.namelist() == ["jobs.json", f"results/{mine['_id']}.json", f"audio/{mine['_id']}.wav"]
        assert archive.read(f"audio/{mine['_id']}.wav") == RECORDING
        (listed,) = json.loads(archive.read("jobs.json"))["jobs"]
        assert (listed["job_id"], listed["s3_url"]) == (mine["_id"], f"urn:sori:audio:{mine['_id']}")

        async def scores() -> Any:
            answer = await client.get("/me/scores")
            return answer.json() if answer.status_code == 200 else None

        # A gateway makes the indexes when it has started, and answers 503 till then.
        (token,) = (await until(scores, "scores"))["tokens"]
        assert (token["token_id"], token["best"]["score"]) == (mine["token_id"], 87.5)


async def test_a_browser_is_logged_out_and_a_machines_key_stays(world: World) -> None:
    key = new_key()
    kept = ApiKey(
        key_sha256=key_sha256(key), key_id=uuid.uuid4().hex, name="a", scopes=[Right.JOBS_OWN], created_at=events.now()
    )
    await world.database["api_keys"].insert_one(kept.model_dump(by_alias=True))
    async with world.gateway() as process, httpx.AsyncClient(trust_env=False, base_url=process.url) as client:
        cookie = {"Cookie": f"{SESSION_COOKIE}={await world.token()}", "Origin": process.url}
        answer = await client.delete("/me", headers=cookie)
        assert answer.status_code == 202
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await client.get("/jobs", headers=cookie)).status_code == 401
        bearer = {"Authorization": f"Bearer {key}"}
        assert (await client.delete("/me", headers=bearer)).status_code == 202
        assert (await client.get("/me/scores", headers=bearer)).json() == {"tokens": []}
        who = (await client.get("/me", headers=bearer)).json()
        assert (who["kind"], who["owner"], who["rights"]) == ("machine", kept.owner, ["jobs:own"])
        nobody = await asyncio.gather(*(client.request(method, path) for method, path in PRIVATE))
        assert [answer.status_code for answer in nobody] == [401] * len(PRIVATE)
        assert (await client.get("/me")).json() == {
            "login_required": True,
            "kind": "anonymous",
            "roles": [],
            "rights": ["catalogue:read"],
            "limits": [],
        }


PRIVATE = [("DELETE", "/me"), ("GET", "/me/scores"), ("GET", "/me/export"), ("HEAD", "/me/export")]
