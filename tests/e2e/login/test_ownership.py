"""Jobs are their owner's: to others they are not there, and nothing tells that they are; what operators do is noted."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from contracts.accounts import API_KEYS, SESSION_COOKIE, key_sha256, person
from contracts.rights import Right
from local_stack.stack import Stack
from tests.support.logins import bearer, kept_key
from tests.support.sori import RECORDING, new_token
from tests.support.sse import Stream, listening
from tests.support.waiting import until

Headers = dict[str, str]
PROMISED_SECONDS = 60.0
"""How soon the streams end of a caller who does not count any more."""
NO_JOB = "5f0c0f4e-0d5b-4b57-8a52-2f1f5b3b7f0a"


@dataclass
class Person:
    """Somebody who has logged in, and what only their jobs say."""

    stack: Stack
    client: httpx.AsyncClient
    name: str
    headers: Headers
    marker: str

    @property
    def owner(self) -> str:
        """Their pseudonym."""
        return person(self.stack.settings["OIDC_ISSUERS"], self.name)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call as this person."""
        headers = {**self.headers, **more.pop("headers", {})}
        return await self.client.request(method, f"{self.stack.url}{path}", headers=headers, **more)

    async def upload(self, token: str | None = None, headers: Headers | None = None) -> str:
        """Send a recording that is known by the marker; return its job's id."""
        sent = await self.ask(
            "POST",
            f"/tokens/{token or new_token()}/upload-audio",
            files={"file": (f"{self.marker}.wav", RECORDING, "audio/wav")},
            data={"metadata": json.dumps({"marker": self.marker})},
            headers=headers or {},
        )
        assert sent.status_code == 202, sent.text
        return str(sent.json()["job_id"])

    async def job(self) -> str:
        """The id of a job of theirs that is completed."""
        job_id = await self.upload()

        async def has_ended() -> bool:
            return bool((await self.ask("GET", f"/jobs/{job_id}")).json()["status"] == "completed")

        await until(has_ended, "the end of the job")
        return job_id


def somebody(stack: Stack, client: httpx.AsyncClient, name: str | None = None) -> Person:
    """A learner whom nobody else is, or one of those whom the provider knows."""
    marker = uuid.uuid4().hex
    name = name or f"learner {marker}"
    return Person(stack, client, name, bearer(stack.id_token(name)), marker)


@pytest.fixture
async def ann(login_stack: Stack, client: httpx.AsyncClient) -> Person:
    return somebody(login_stack, client)


@pytest.fixture
async def bob(login_stack: Stack, client: httpx.AsyncClient) -> Person:
    return somebody(login_stack, client)


@pytest.fixture
async def operator(login_stack: Stack, client: httpx.AsyncClient) -> Person:
    return somebody(login_stack, client, "operator")


@pytest.fixture
async def database(login_stack: Stack) -> AsyncIterator[Any]:
    async with AsyncMongoClient[dict[str, Any]](login_stack.settings["MONGODB_URL"]) as mongodb:
        yield mongodb.get_default_database()


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/tokens/analysis-result/{job_id}", {}),
    ("HEAD", "/tokens/analysis-result/{job_id}", {}),
    ("GET", "/tokens/analysis-progress/{job_id}", {}),
    ("HEAD", "/tokens/analysis-progress/{job_id}", {}),
    ("GET", "/tokens/analysis-progress/{job_id}", {"headers": {"Last-Event-ID": "99"}}),
    ("GET", "/tokens/analysis-progress/{job_id}?lastEventId=99", {}),
    ("GET", "/jobs/{job_id}", {}),
    ("GET", "/jobs/{job_id}/audio", {}),
    ("HEAD", "/jobs/{job_id}/audio", {}),
    ("GET", "/jobs/{job_id}/audio", {"headers": {"Range": "bytes=0-1"}}),
    ("GET", "/jobs/{job_id}/audio", {"headers": {"Range": "bytes=99999999-"}}),
    ("POST", "/jobs/{job_id}/retry", {}),
    ("DELETE", "/jobs/{job_id}", {}),
    ("DELETE", "/jobs/{job_id}?purge=true", {}),
    ("POST", "/jobs/{job_id}/links", {"json": {}}),
    ("GET", "/jobs/{job_id}/links", {}),
    ("DELETE", "/jobs/{job_id}/links/{job_id}", {}),
    ("POST", "/auth/tickets", {"json": {"job_id": "{job_id}"}}),
]


def about(job_id: str, path: str, more: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    body = {"json": {"job_id": job_id}} if more.get("json") else {}
    return path.format(job_id=job_id), {**more, **body}


def told(answer: httpx.Response, job_id: str) -> tuple[int, str, dict[str, str]]:
    """All that an answer says, but for the job's id, the time, and how many calls the caller has left."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "ratelimit"}}
    return answer.status_code, answer.text.replace(job_id, "…"), headers


async def test_what_is_somebody_elses_is_told_as_what_is_not_there(ann: Person, bob: Person) -> None:
    job_id = await ann.job()
    for method, path, more in CALLS:
        others, nobodys = [
            told(await bob.ask(method, address, **how), one)
            for one in (job_id, NO_JOB)
            for address, how in [about(one, path, more)]
        ]
        assert others[0] == 404, (method, path, others)
        assert others == nobodys, (method, path)
        assert ann.marker not in others[1]
    assert (await ann.ask("GET", f"/jobs/{job_id}")).json()["metadata"] == {"marker": ann.marker}
    assert (await ann.ask("GET", f"/jobs/{job_id}/audio")).content == RECORDING


async def test_lists_and_their_cursors_show_ones_own_jobs_alone(ann: Person, bob: Person) -> None:
    token = new_token()
    anns = [await ann.upload(token) for _ in range(3)]
    bobs = [await bob.upload(token) for _ in range(2)]

    async def listed(who: Person, query: str) -> list[str]:
        answer = await who.ask("GET", f"/jobs?{query}")
        assert answer.status_code == 200
        assert (bob if who is ann else ann).marker not in answer.text
        return [job["job_id"] for job in answer.json()["jobs"]]

    for query in ("", f"token_id={token}", "limit=100", "status=processing&limit=100", "status=completed&limit=100"):
        assert set(await listed(ann, query)) <= set(anns)
        assert set(await listed(bob, query)) <= set(bobs)
    assert await listed(bob, f"metadata.marker={ann.marker}") == []
    anns_next = (await ann.ask("GET", "/jobs?limit=1")).json()["next"].partition("?")[2]
    assert set(await listed(bob, anns_next)) <= set(bobs)
    assert set(await listed(ann, f"{anns_next}&limit=100")) == set(anns[:2])


async def test_the_same_idempotency_key_of_two_people_is_two_keys(ann: Person, bob: Person) -> None:
    token, key = new_token(), {"Idempotency-Key": uuid.uuid4().hex}
    first, again, others = [await who.upload(token, key) for who in (ann, ann, bob)]
    assert first == again != others
    assert (await bob.ask("GET", f"/jobs/{first}")).status_code == 404
    used = {"file": ("a.wav", RECORDING[:-2], "audio/wav")}
    answer = await bob.ask("POST", f"/tokens/{new_token()}/upload-audio", files=used, headers=key)
    assert answer.json()["code"] == "idempotency_key_reused", "a key's own user is told"


async def test_a_retry_is_the_owners_whoever_asks_for_it(ann: Person, bob: Person, operator: Person) -> None:
    job_id = await ann.job()
    retried = (await operator.ask("POST", f"/jobs/{job_id}/retry")).json()["job_id"]
    assert (await ann.ask("GET", f"/jobs/{retried}")).json()["retry_of"] == job_id
    assert (await bob.ask("GET", f"/jobs/{retried}")).status_code == 404


async def test_where_audio_lies_is_told_to_operators_alone(ann: Person, operator: Person) -> None:
    job_id = await ann.job()
    stream = f"/tokens/analysis-progress/{job_id}"
    ticket = (await ann.ask("POST", "/auth/tickets", json={"job_id": job_id})).json()["progress_url"]
    own = [await ann.ask("GET", path) for path in (f"/jobs/{job_id}", f"/tokens/analysis-result/{job_id}", "/jobs")]
    streamed = [await ann.ask("GET", stream), await ann.client.get(f"{ann.stack.url}{ticket}")]
    for answer in (*own, *streamed):
        assert f"urn:sori:audio:{job_id}" in answer.text
        assert "s3://" not in answer.text.replace(f"urn:sori:audio:{job_id}", "").partition('"result"')[0]
    seen = [await operator.ask("GET", path) for path in (f"/jobs/{job_id}", stream)]
    assert all("s3://" in answer.text for answer in seen)


async def test_what_operators_do_with_others_jobs_is_noted(ann: Person, operator: Person, database: Any) -> None:
    job_id = await ann.job()
    for method, path, more in CALLS:
        if "purge" not in path:
            address, how = about(job_id, path, more)
            await operator.ask(method, address, **how)
    await operator.ask("DELETE", f"/jobs/{job_id}?purge=true")
    await ann.ask("GET", f"/jobs/{job_id}")
    entries = [entry async for entry in database["audit"].find({"job_id": job_id})]
    assert {entry["done"] for entry in entries} == {"read", "stream", "hear", "retry", "cancel", "share", "purge"}
    assert {(entry["caller"], entry["owner"]) for entry in entries} == {(operator.owner, ann.owner)}


async def test_jobs_without_an_owner_are_the_operators(ann: Person, operator: Person, database: Any) -> None:
    job_id = await ann.job()
    await database["jobs"].update_one({"_id": job_id}, {"$set": {"owner": None}})
    assert (await ann.ask("GET", f"/jobs/{job_id}")).status_code == 404
    assert ann.marker not in (await ann.ask("GET", "/jobs?limit=100")).text
    assert (await operator.ask("GET", f"/jobs/{job_id}")).status_code == 200
    assert job_id in (await operator.ask("GET", f"/jobs?metadata.marker={ann.marker}")).text


async def test_streams_end_within_a_minute_of_their_callers_end(
    ann: Person, login_stack: Stack, client: httpx.AsyncClient, database: Any
) -> None:
    job_id = await ann.upload(new_token("never-calls-back"))
    url = f"{login_stack.url}/tokens/analysis-progress/{job_id}"
    opened = await ann.ask("POST", "/auth/session")
    session = opened.headers["set-cookie"].split(";")[0].removeprefix(f"{SESSION_COOKIE}=")
    cookie = {"Cookie": f"{SESSION_COOKIE}={session}", "Origin": "http://localhost:3000"}
    asked = await client.post(f"{login_stack.url}/auth/tickets", json={"job_id": job_id}, headers=cookie)
    ticket = f"{login_stack.url}{asked.json()['progress_url']}"
    key = await kept_key(database, Right.JOBS_ALL)
    ends: list[Stream] = []
    async with AsyncExitStack() as open_streams:
        goes_on = await open_streams.enter_async_context(listening(client, url, headers=ann.headers))
        for address, headers in ((url, cookie), (ticket, {}), (url, bearer(key))):
            ends.append(await open_streams.enter_async_context(listening(client, address, headers=headers)))
        assert [stream.response.status_code for stream in (goes_on, *ends)] == [200] * 4
        going_on = asyncio.create_task(goes_on.to_end())
        assert (await client.delete(f"{login_stack.url}/auth/session", headers=cookie)).status_code == 204
        await database[API_KEYS].update_one({"_id": key_sha256(key)}, {"$currentDate": {"revoked_at": True}})
        async with asyncio.timeout(PROMISED_SECONDS):
            await asyncio.gather(*(stream.to_end() for stream in ends))
        assert not going_on.done()
        going_on.cancel()
    assert (await client.get(url, headers=cookie)).status_code == 401
    assert (await client.get(ticket)).status_code == 401
    await ann.ask("DELETE", f"/jobs/{job_id}?purge=true")
