"""Cancelling, purging and retrying jobs, through the edge."""

import asyncio
import uuid
from typing import Any

import httpx

from contracts import events
from contracts.job import MAX_RETRIES, Job
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.recordings import wav
from tests.support.sori import RECORDING, Sori, State, new_token
from tests.support.sse import followed, listening
from tests.support.waiting import until


async def cancel(sori: Sori, job_id: str, query: str = "") -> httpx.Response:
    return await sori.client.delete(f"{sori.url}/jobs/{job_id}{query}")


async def purge(sori: Sori, job_id: str) -> httpx.Response:
    return await cancel(sori, job_id, "?purge=true")


async def retry(sori: Sori, job_id: str, language: str = "ko") -> httpx.Response:
    headers = {"Accept-Language": LANGUAGES[language]}
    return await sori.client.post(f"{sori.url}/jobs/{job_id}/retry", headers=headers)


async def details(sori: Sori, job_id: str) -> State:
    answer = await sori.client.get(f"{sori.url}/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    found: State = answer.json()
    return found


async def gone(sori: Sori, bucket: Bucket, jobs: Any, job_id: str) -> None:
    """Wait until nothing is kept of a job: no document, no object, no analysis that tells anything."""

    async def nothing_left() -> bool:
        kept = {key for prefix in ("inbox/", "audio/") for key in await bucket.keys(prefix) if job_id in key}
        analysis = await jobs.database["analyses"].find_one({"_id": job_id}) or {}
        told = {"token_id", "s3_url", "result_json"} & {name for name, value in analysis.items() if value is not None}
        return not kept and not told and not await jobs.count_documents({"_id": job_id})

    await until(nothing_left, f"nothing left of {job_id}")
    assert_problem(await sori.result(job_id), 404, "job_not_found")


async def test_a_job_that_waits_for_its_analysis_is_cancelled(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    answer = await cancel(sori, job_id)
    assert answer.status_code == 202
    assert answer.json() == {"job_id": job_id, "status": "processing", "message": "취소 요청을 받았습니다."}
    state = await sori.ended(job_id)
    assert (state["status"], state["stage"], state["message"]) == ("cancelled", "done", "분석 취소")
    assert (await followed(sori.client, sori.progress_url(job_id)))[-1].state["status"] == "cancelled"


async def test_a_cancel_that_comes_at_once_stops_the_job(sori: Sori) -> None:
    for _ in range(5):
        job_id = await sori.job(token_id=new_token("slow"))
        assert (await cancel(sori, job_id)).status_code == 202
        assert (await sori.ended(job_id))["status"] in {"cancelled", "completed"}


async def test_a_cancel_that_overtakes_the_recording_leaves_a_mark_that_stops_the_analysis(
    sori: Sori, analysis_server: AnalysisServer, broker: Broker, bucket: Bucket, jobs: Any
) -> None:
    token_id = new_token()
    upload = Story(str(uuid.uuid4()), token_id).upload_received()
    job_id = upload.subject
    await jobs.insert_one(Job.received(upload, None).model_dump(by_alias=True, exclude={"upload_received"}))
    assert (await cancel(sori, job_id)).status_code == 202
    assert (await sori.ended(job_id))["status"] == "cancelled"

    async def marked() -> bool:
        return await jobs.database["analyses"].find_one({"_id": job_id}) is not None

    await until(marked, "the bridge's mark")
    await bucket.put(upload.data.inbox_key, RECORDING)
    async with broker.overhearing() as overheard:
        await broker.publish(upload)
        await overheard.until(job_id, events.AudioStored)
        await sori.completed()  # by then the bridge has had the other one too
    assert await analysis_server.requests_for(token_id) == []
    assert (await sori.state(job_id))["status"] == "cancelled"


async def test_a_job_that_has_ended_stays_as_it_is(sori: Sori) -> None:
    state = await sori.completed()
    for _ in range(2):
        answer = await cancel(sori, state["job_id"])
        assert (answer.status_code, answer.json()["status"]) == (202, "completed")
    assert await sori.state(state["job_id"]) == state


async def test_a_webhook_after_the_cancel_is_answered_and_changes_nothing(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    await cancel(sori, job_id)
    state = await sori.ended(job_id)
    answer = await sori.webhook(job_id, {"status": "success", "result": {"score": 1}})
    assert (answer.status_code, answer.json()) == (200, {"received": True, "job_id": job_id})

    async def kept() -> bool:
        history = (await details(sori, job_id))["history"]
        return any(line["type"] == "analysis.webhook-ignored.v1" for line in history)

    await until(kept, "the late webhook in the history")
    assert await sori.state(job_id) == state


async def test_purging_an_ended_job_leaves_nothing(sori: Sori, bucket: Bucket, jobs: Any) -> None:
    job_id = (await sori.completed())["job_id"]
    answer = await purge(sori, job_id)
    assert answer.status_code == 202
    assert answer.json() == {"job_id": job_id, "status": "completed", "message": "삭제 요청을 받았습니다."}
    await gone(sori, bucket, jobs, job_id)
    assert_problem(await purge(sori, job_id), 404, "job_not_found")


async def test_purging_a_job_under_way_ends_it_and_leaves_nothing(sori: Sori, bucket: Bucket, jobs: Any) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    async with listening(sori.client, sori.progress_url(job_id)) as stream, asyncio.timeout(20):
        messages = stream.messages()
        assert (await anext(messages)).state["status"] == "processing"
        assert (await purge(sori, job_id)).status_code == 202
        assert [message.state["status"] async for message in messages][-1] == "cancelled"
    await gone(sori, bucket, jobs, job_id)


async def test_purging_right_after_the_upload_leaves_nothing(sori: Sori, bucket: Bucket, jobs: Any) -> None:
    ids = [await sori.job(wav(20.0, seed=5)) for _ in range(4)]
    await asyncio.gather(*(purge(sori, job_id) for job_id in ids))
    for job_id in ids:
        await gone(sori, bucket, jobs, job_id)


async def test_a_retry_is_a_new_job_with_the_same_recording(sori: Sori, bucket: Bucket) -> None:
    token_id = new_token("fail")
    old = await sori.ended(await sori.job(token_id=token_id, filename="녹음.wav"))
    assert old["status"] == "failed"
    answer = await retry(sori, old["job_id"])
    assert answer.status_code == 202
    body = answer.json()
    assert body["retry_of"] == old["job_id"] != body["job_id"]
    assert answer.headers["location"] == body["result_url"]
    await sori.ended(body["job_id"])
    found = await details(sori, body["job_id"])
    assert (found["retry_of"], found["filename"], found["token_id"]) == (old["job_id"], "녹음.wav", token_id)
    assert await bucket.read(f"audio/{body['job_id']}.wav") == RECORDING
    await bucket.until_inbox_is_empty()


async def test_a_retry_of_a_cancelled_job_completes(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    assert_problem(await retry(sori, job_id), 409, "job_not_ended")
    await cancel(sori, job_id)
    await sori.ended(job_id)
    again = (await retry(sori, job_id)).json()["job_id"]
    await sori.reached(again, 90)
    answer = await sori.webhook(again, {"status": "success", "result": {"score": 2}})
    assert answer.status_code == 200
    assert (await sori.ended(again))["result"] == {"score": 2}


async def test_a_recording_has_so_many_retries_and_no_more_at_all_replicas_together(sori: Sori, bucket: Bucket) -> None:
    job_id = (await sori.completed())["job_id"]
    answers = await asyncio.gather(*(retry(sori, job_id) for _ in range(MAX_RETRIES * 2)))
    made = [answer.json()["job_id"] for answer in answers if answer.status_code == 202]
    assert len(made) == MAX_RETRIES
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 409, "retries_spent")
    await asyncio.gather(*(sori.ended(one) for one in made))
    for language in LANGUAGES:
        assert_problem(await retry(sori, made[3], language), 409, "retries_spent", language)
    await purge(sori, made[0])
    await until(lambda: _accepted(sori, made[3]), "room for one more once one was purged")
    await bucket.until_inbox_is_empty()


async def _accepted(sori: Sori, job_id: str) -> bool:
    return (await retry(sori, job_id)).status_code == 202


async def test_what_has_no_recording_cannot_be_retried(sori: Sori, bucket: Bucket) -> None:
    rejected = await sori.ended(await sori.job(b"no audio"))
    for language in LANGUAGES:
        assert_problem(await retry(sori, rejected["job_id"], language), 409, "recording_gone", language)
        assert_problem(await retry(sori, str(uuid.uuid4()), language), 404, "job_not_found", language)
    await bucket.until_inbox_is_empty()


async def test_a_trailing_slash_is_accepted(sori: Sori) -> None:
    job_id = (await sori.completed())["job_id"]
    assert (await sori.client.post(f"{sori.url}/jobs/{job_id}/retry/")).status_code == 202
    assert (await sori.client.delete(f"{sori.url}/jobs/{job_id}/")).status_code == 202
