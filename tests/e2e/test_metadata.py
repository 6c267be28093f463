"""What a user notes with a recording: it is with the job wherever the job is seen, and jobs are found by it."""

import json
import uuid
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.broker import Broker
from tests.support.raw_http import BOUNDARY, form, part
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.sse import heard
from tests.support.waiting import until

FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
FILE = part(RECORDING)


def note(text: bytes) -> bytes:
    return part(text, name="metadata", filename=None)


async def send(sori: Sori, body: bytes, token_id: str | None = None, **headers: str) -> httpx.Response:
    sent = {**FORM, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await sori.client.post(
        f"{sori.url}/tokens/{token_id or new_token()}/upload-audio", content=body, headers=sent
    )


async def job_with(sori: Sori, metadata: Any, token_id: str | None = None) -> str:
    answer = await send(sori, form(note(json.dumps(metadata).encode()), FILE), token_id)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def listed(sori: Sori, query: str) -> list[str]:
    answer = await sori.client.get(f"{sori.url}/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["job_id"] for job in answer.json()["jobs"]]


async def test_metadata_is_wherever_the_job_is_seen(sori: Sori, broker: Broker) -> None:
    """In every state, result, list and event, and with a retry of the job."""
    user = uuid.uuid4().hex
    metadata = {"user": user, "a.b": {"$set": [None, 1.5, True]}, "큰 수": 2**70}
    async with broker.overhearing() as overheard:
        job_id = await job_with(sori, metadata)
        states = [message.state for message in await heard(sori.client, sori.progress_url(job_id))]
        result = await sori.ended(job_id)
        retried = await sori.client.post(f"{sori.url}/jobs/{job_id}/retry")
        again = await sori.ended(retried.json()["job_id"])
        events = [event for event in overheard.events if event.subject in {job_id, again["job_id"]}]
    details = (await sori.client.get(f"{sori.url}/jobs/{job_id}")).json()
    page = (await sori.client.get(f"{sori.url}/jobs?metadata.user={user}")).json()["jobs"]
    assert [job["job_id"] for job in page] == [again["job_id"], job_id]
    assert (result["status"], again["status"], details["status"]) == ("completed",) * 3
    for seen in (*states, result, again, details, *page):
        assert seen["metadata"] == metadata
    told = {event.type: event.data.model_dump() for event in events}
    assert told.keys() >= {"upload.received.v1", "audio.stored.v1", "analysis.completed.v1", "job.progressed.v1"}
    for event_type, data in told.items():
        assert ("metadata" in data) == ("token_id" in data), event_type
        assert data.get("metadata", metadata) == metadata, event_type


async def test_a_failed_and_a_cancelled_job_have_their_metadata_and_a_purged_one_leaves_none(
    sori: Sori, jobs: Any, broker: Broker
) -> None:
    user = uuid.uuid4().hex
    failing = await send(sori, form(part(b"no audio"), note(json.dumps({"user": user}).encode())))
    failed = await sori.ended(failing.json()["job_id"])
    running = await job_with(sori, {"user": user}, new_token("never-calls-back"))
    await sori.client.delete(f"{sori.url}/jobs/{running}")
    cancelled = await sori.ended(running)
    assert (failed["status"], cancelled["status"]) == ("failed", "cancelled")
    assert failed["metadata"] == cancelled["metadata"] == {"user": user}
    assert await listed(sori, f"metadata.user={user}") == [running, failed["job_id"]]
    async with broker.overhearing() as overheard:
        for job_id in (running, failed["job_id"]):
            await sori.client.delete(f"{sori.url}/jobs/{job_id}?purge=true")

        async def gone() -> bool:
            return not await jobs.count_documents({"_id": {"$in": [running, failed["job_id"]]}})

        await until(gone, "the end of both documents")
    assert {e.type for e in overheard.events if getattr(e.data, "metadata", None) == {"user": user}} >= {
        "job.purged.v1",
        "audio.removed.v1",
        "analysis.removed.v1",
    }
    assert await listed(sori, f"metadata.user={user}") == []


async def test_a_job_without_metadata_has_no_such_field(sori: Sori) -> None:
    state = await sori.completed()
    assert "metadata" not in state
    assert "metadata" not in (await sori.client.get(f"{sori.url}/jobs/{state['job_id']}")).json()


WAYS = {
    "before the file": form(note(b'{"user": 7}'), FILE),
    "after the file": form(FILE, note(b'{"user": 7}')),
    "as a part of JSON with a file name": form(FILE, part(b'{"user": 7}', name="metadata", filename="blob")),
}


@pytest.mark.parametrize("way", WAYS)
async def test_metadata_may_come_before_or_after_the_file(sori: Sori, way: str) -> None:
    answer = await send(sori, WAYS[way])
    assert (await sori.state(answer.json()["job_id"]))["metadata"] == {"user": 7}


async def test_metadata_of_a_body_of_audio_is_in_its_address(sori: Sori) -> None:
    url = f"{sori.url}/tokens/{new_token()}/upload-audio?metadata={quote(json.dumps({'user': 'a b&c'}))}"
    answer = await sori.client.post(url, content=RECORDING, headers={"Content-Type": "audio/wav"})
    assert (await sori.state(answer.json()["job_id"]))["metadata"] == {"user": "a b&c"}
    refused = await sori.client.post(f"{url}&metadata=7", content=RECORDING, headers={"Content-Type": "audio/wav"})
    assert_problem(refused, 422, "metadata_invalid")


BAD = {
    "no JSON": b"user=7",
    "a list": b"[7]",
    "a text": b'"user"',
    "too large": b'{"user":"' + b"x" * 4096 + b'"}',
    "too deep": b'{"a":' * 500 + b"1" + b"}" * 500,
    "NaN": b'{"a":NaN}',
    "a number that is too large": b'{"a":1e999}',
    "a lone surrogate": b'{"a":"\\ud83d"}',
    "no UTF-8": b'{"a":"\xff"}',
    "cut": b'{"a":1',
}


@pytest.mark.parametrize("name", BAD)
async def test_metadata_that_cannot_be_kept_is_refused(sori: Sori, jobs: Any, name: str) -> None:
    token_id = new_token()
    for body in (form(note(BAD[name]), FILE), form(FILE, note(BAD[name]))):
        for language, header in LANGUAGES.items():
            answer = await send(sori, body, token_id, Accept_Language=header)
            assert_problem(answer, 422, "metadata_invalid", language)
    assert not await jobs.count_documents({"token_id": token_id})


async def test_metadata_that_comes_twice_is_refused(sori: Sori) -> None:
    assert_problem(await send(sori, form(note(b"{}"), FILE, note(b"{}"))), 422, "metadata_invalid")


async def test_jobs_are_found_by_any_key_at_the_top(sori: Sori) -> None:
    token_id = new_token()
    given: list[dict[str, Any]] = [
        {"user": 7, "lesson": "가 나"},
        {"user": "7", "done": True},
        {"user": [7, 8], "a.b": "c&d"},
        {"user": 2**70, "$where": None},
        {"user": {"7": 7}},
        {},
    ]
    ids = [await job_with(sori, metadata, token_id) for metadata in given]
    found = {
        "metadata.user=7": [2, 1, 0],
        "metadata.user=7.0": [2, 1, 0],
        "metadata.user=8": [2],
        "metadata.user=7&metadata.user=8": [2],
        "metadata.user=7&metadata.done=true": [1],
        f"metadata.lesson={quote('가 나')}": [0],
        "metadata.lesson=%EA%B0%80+%EB%82%98": [0],
        "metadata.a.b=c%26d": [2],
        "metadata.%24where=null": [3],
        f"metadata.user={2**70}": [3],
        "metadata.user=": [],
        "metadata.user=9": [],
        "metadata.=": [],
        "metadata.user=%00": [],
    }
    for query, numbers in found.items():
        assert await listed(sori, f"token_id={token_id}&{query}") == [ids[number] for number in numbers], query


async def test_the_pages_of_a_list_by_metadata_follow_one_another(sori: Sori) -> None:
    user = f"가 & {uuid.uuid4().hex}+"
    ids = [await job_with(sori, {"user": user, "n": n % 2}) for n in range(5)]
    address, found = f"/jobs?metadata.user={quote(user)}&metadata.n=0&limit=1&status=completed", []
    for job_id in ids:
        await sori.ended(job_id)
    while address:
        page = (await sori.client.get(sori.url + address)).json()
        found += [job["job_id"] for job in page["jobs"]]
        address = page.get("next")
    assert found == [ids[4], ids[2], ids[0]]


async def test_a_key_is_for_one_recording_with_its_metadata(sori: Sori, stack: Stack, jobs: Any) -> None:
    token_id, key, user = new_token(), uuid.uuid4().hex, uuid.uuid4().hex
    body = form(FILE, note(json.dumps({"user": user, "n": 1}).encode()))
    first = await send(sori, body, token_id, Idempotency_Key=key)
    turned = form(note(json.dumps({"n": 1, "user": user}).encode()), FILE)
    assert (await send(sori, turned, token_id, Idempotency_Key=key)).json() == first.json()
    for other in (form(FILE), form(FILE, note(b'{"user": 8}'))):
        assert_problem(await send(sori, other, token_id, Idempotency_Key=key), 422, "idempotency_key_reused")
    keys = jobs.database["idempotency_keys"]
    kept = [str(document) async for document in keys.find({"job_id": first.json()["job_id"]})]
    assert kept
    assert not any(user in text for text in kept), "metadata would outlive a purged job"
