"""Idempotency-Key on uploads, through the edge and two gateways: one key, one job."""

import asyncio
import hashlib
import uuid
from typing import Any

import httpx

from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.bucket import Bucket
from tests.support.raw_http import BOUNDARY, part, raw_connection
from tests.support.recordings import wav
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.stacks import kill_and_await
from tests.support.waiting import until

OTHER = wav(0.4, seed=2)
LEASE_SECONDS = 30.0


def key() -> str:
    """A key as the draft writes it."""
    return f'"{uuid.uuid4()}"'


async def upload(
    sori: Sori, given: str, token_id: str, recording: bytes = RECORDING, language: str = "ko"
) -> httpx.Response:
    # A connection each: after an answer that came before the body was read, nginx may close one that was to be kept.
    headers = {"Idempotency-Key": given, "Accept-Language": LANGUAGES[language], "Connection": "close"}
    return await sori.upload(recording, token_id, headers=headers)


async def jobs_of(jobs: Any, token_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await jobs.find({"token_id": token_id}).to_list()
    return found


async def claimed(jobs: Any, given: str) -> None:
    """Wait until a request with this key has it."""
    hashed = hashlib.sha256(given.strip('"').encode()).hexdigest()

    async def look() -> bool:
        return bool(await jobs.database["idempotency_keys"].count_documents({"_id": hashed}))

    await until(look, "the claim")


async def test_the_same_upload_again_gets_the_first_answer_and_no_second_job(
    sori: Sori, jobs: Any, bucket: Bucket
) -> None:
    given, token_id = key(), new_token()
    first = await upload(sori, given, token_id)
    assert first.status_code == 202
    job_id = first.json()["job_id"]
    assert (await sori.ended(job_id))["status"] == "completed"
    # Quoted as the draft has it, or bare as most clients send it: the same key.
    for again in (given, given.strip('"')):
        answer = await upload(sori, again, token_id)
        assert (answer.status_code, answer.content) == (202, first.content)
        assert answer.headers["location"] == first.headers["location"]
    assert [job["_id"] for job in await jobs_of(jobs, token_id)] == [job_id]

    async def only_audio() -> bool:
        return {k for p in ("inbox/", "audio/") for k in await bucket.keys(p + job_id)} == {f"audio/{job_id}.wav"}

    await until(only_audio, "one object of the job")


async def test_a_key_is_good_for_one_recording_and_one_token(sori: Sori, jobs: Any) -> None:
    given, token_id = key(), new_token()
    first = await upload(sori, given, token_id)
    for language in LANGUAGES:
        other_bytes = await upload(sori, given, token_id, OTHER, language)
        assert_problem(other_bytes, 422, "idempotency_key_reused", language)
        other_token = await upload(sori, given, new_token(), language=language)
        assert_problem(other_token, 422, "idempotency_key_reused", language)
    assert [job["_id"] for job in await jobs_of(jobs, token_id)] == [first.json()["job_id"]]


async def test_what_is_no_key_is_refused(sori: Sori, jobs: Any) -> None:
    token_id = new_token()
    for given in ("", '""', '"unended', "two words", "x" * 256):
        for language in LANGUAGES:
            answer = await upload(sori, given, token_id, language=language)
            assert_problem(answer, 400, "idempotency_key_invalid", language)
    assert await jobs_of(jobs, token_id) == []


async def test_of_many_at_once_one_makes_the_job_and_the_others_are_told_to_come_again(sori: Sori, jobs: Any) -> None:
    given, token_id = key(), new_token()
    answers = await asyncio.gather(*(upload(sori, given, token_id) for _ in range(12)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["job_id"] for answer in accepted}) == 1
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "idempotency_key_in_use")
            assert int(answer.headers["retry-after"]) >= 1
    assert len(await jobs_of(jobs, token_id)) == 1
    again = await upload(sori, given, token_id)
    assert again.content == accepted[0].content


async def test_a_front_end_that_gave_up_and_sends_again_gets_one_job(sori: Sori, jobs: Any) -> None:
    """The first copy is still on its way, slowly; the second is told to wait, and then has the first one's job."""
    given, token_id = key(), new_token()
    body = part(RECORDING) + f"--{BOUNDARY}--\r\n".encode()
    head = {"Idempotency-Key": given, "Content-Length": str(len(body))}
    async with raw_connection(sori.url) as slow:
        await slow.begin_upload(token_id, head)
        await slow.send(body[:5000])
        await claimed(jobs, given)
        assert_problem(await upload(sori, given, token_id), 409, "idempotency_key_in_use")
        await slow.send(body[5000:])
        first = await slow.answer()
    assert first.status == 202
    again = await upload(sori, given, token_id)
    assert again.json() == first.json()
    assert len(await jobs_of(jobs, token_id)) == 1


async def test_an_upload_that_breaks_off_frees_its_key_at_once(sori: Sori, jobs: Any) -> None:
    given, token_id = key(), new_token()
    async with raw_connection(sori.url) as broken:
        await broken.begin_upload(token_id, {"Idempotency-Key": given, "Content-Length": "100000"})
        await broken.send(part(RECORDING)[:5000])
        await claimed(jobs, given)
        broken.abort()

    async def accepted() -> httpx.Response | None:
        answer = await upload(sori, given, token_id)
        return answer if answer.status_code == 202 else None

    answer = await until(accepted, "the next request's turn", limit_seconds=LEASE_SECONDS / 3)
    assert [job["_id"] for job in await jobs_of(jobs, token_id)] == [answer.json()["job_id"]]


async def test_a_refused_upload_frees_its_key_at_once(sori: Sori) -> None:
    given, token_id = key(), new_token()
    assert_problem(await upload(sori, given, token_id, b""), 422, "file_empty")
    assert (await upload(sori, given, token_id)).status_code == 202


async def test_a_gateway_that_is_killed_in_the_middle_leaves_a_key_that_is_free_after_its_lease(
    stack: Stack, sori: Sori, jobs: Any
) -> None:
    given, token_id = key(), new_token()
    async with raw_connection(stack.parts["gateway-1"].address) as upload_of_the_dead:
        await upload_of_the_dead.begin_upload(token_id, {"Idempotency-Key": given, "Content-Length": "100000"})
        await upload_of_the_dead.send(part(RECORDING)[:5000])
        await claimed(jobs, given)
        await kill_and_await(stack, "gateway-1")
    assert_problem(await upload(sori, given, token_id), 409, "idempotency_key_in_use")

    async def accepted() -> httpx.Response | None:
        answer = await upload(sori, given, token_id)
        return answer if answer.status_code == 202 else None

    answer = await until(accepted, "the end of the lease", limit_seconds=LEASE_SECONDS + 10)
    assert [job["_id"] for job in await jobs_of(jobs, token_id)] == [answer.json()["job_id"]]
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"
