"""The analysis server is away: jobs say that they wait for it, it is left alone, and all goes on when it is back."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from analyzer_bridge.analysis_server import FAILURES, REST_SECONDS
from contracts.events import (
    AnalysisDelayed,
    AnalysisRequested,
    AnalysisWebhookIgnored,
    JobCancelled,
    JobCancelledData,
    JobExpired,
    JobExpiredData,
    JobPurged,
    JobPurgedData,
)
from contracts.failures import FailureCode
from contracts.job import DELAYED_MESSAGE
from local_stack.stack import Stack
from tests.conftest import ANALYSIS_TIMEOUT_SECONDS
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.events import TRACEPARENT, Story
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.unanswered import ASKED_AGAIN_SECONDS, end_of_first_wait
from tests.support.waiting import until, until_true

JOBS = 24
BRIDGES = ("analyzer-bridge-1", "analyzer-bridge-2")
REPLICAS = len(BRIDGES)


async def waiting(sori: Sori, job_id: str) -> dict[str, Any]:
    """The job's state once it says that it waits for the server."""

    async def look() -> dict[str, Any] | None:
        state = await sori.state(job_id)
        return state if state["message"] == DELAYED_MESSAGE else None

    return await until(look, f"job {job_id} waiting")


@pytest.mark.parametrize("status", [0, 503], ids=["closing connections", "503"])
async def test_jobs_wait_and_the_server_is_left_alone_until_it_is_back(
    stack: Stack, sori: Sori, analysis_server: AnalysisServer, status: int
) -> None:
    async def warned() -> bool:
        healths = [await sori.client.get(f"{stack.parts[bridge].address}/health") for bridge in BRIDGES]
        warnings = [warning for health in healths for warning in health.json()["warnings"]]
        is_away = any("the analysis server is away" in one for one in warnings)
        assert not (is_away and status), "busy is not away"
        return is_away == (not status) and any("recordings wait for the analysis server" in one for one in warnings)

    known = new_token()
    recording = wav(0.4, seed=31)
    await sori.completed(recording, known)
    async with analysis_server.away(status):
        before = await analysis_server.asked()
        ids = await asyncio.gather(*(sori.job(wav(0.3, seed=40 + number)) for number in range(JOBS)))
        for state in await asyncio.gather(*(waiting(sori, job_id) for job_id in ids)):
            assert (state["status"], state["stage"], state["progress"]) == ("processing", "waiting", 70)
        await until(warned, "a bridge that warns")
        # What is known already needs no server.
        assert (await sori.completed(recording, known))["status"] == "completed"
        # Each replica has asked a few at a time, and none of that may grow with the number of jobs.
        assert await analysis_server.asked() - before < JOBS
    ends = await asyncio.gather(*(sori.ended(job_id) for job_id in ids))
    assert {state["status"] for state in ends} == {"completed"}
    assert [state["result"]["s3_audio_url"] for state in ends] == [state["s3_url"] for state in ends]


async def test_how_often_an_absent_server_is_asked_is_bounded_by_time_not_by_jobs(
    sori: Sori, analysis_server: AnalysisServer
) -> None:
    async with analysis_server.away(503):
        ids = await asyncio.gather(*(sori.job(wav(0.3, seed=80 + number)) for number in range(JOBS)))
        await asyncio.gather(*(waiting(sori, job_id) for job_id in ids))
        before = await analysis_server.asked()
        began = asyncio.get_running_loop().time()

        async def rounds() -> int:
            return await analysis_server.asked() - before

        async def asked_again() -> bool:
            return await rounds() >= FAILURES

        await until(asked_again, "one more round")
        seconds = asyncio.get_running_loop().time() - began
        # In every rest and beginning of one, each replica asks less than twice as often as makes it rest again.
        assert await rounds() <= REPLICAS * 2 * FAILURES * (seconds / REST_SECONDS + 1)
    ends = await asyncio.gather(*(sori.ended(job_id) for job_id in ids))
    assert {state["status"] for state in ends} == {"completed"}


async def test_an_overdue_analysis_uses_no_attempt_up_while_the_server_is_away(
    sori: Sori, analysis_server: AnalysisServer, broker: Broker
) -> None:
    token_id = new_token("never-calls-back")
    async with broker.overhearing() as overheard:
        job_id = await sori.job(token_id=token_id)
        first = await analysis_server.request_for(token_id)
        await overheard.until(job_id, AnalysisRequested)
    async with analysis_server.away(0):
        # It is due, and then due again if it were counted: there are two attempts only.
        tried = await analysis_server.request_for(token_id, count=2, limit_seconds=ASKED_AGAIN_SECONDS)
        assert tried.at >= end_of_first_wait(overheard, job_id, ANALYSIS_TIMEOUT_SECONDS)
        third = await analysis_server.request_for(token_id, count=3)
    state = await sori.state(job_id)
    assert state["status"] == "processing"
    taken = await analysis_server.request_for(token_id, count=4)
    attempts = [parse_qs(urlsplit(one.webhook_url).query)["attempt"] for one in (first, tried, third, taken)]
    assert attempts == [["1"], ["2"], ["2"], ["2"]]
    assert (await sori.webhook(job_id, {"status": "success", "result": {"late": True}}, attempt=2)).status_code == 200
    assert (await sori.ended(job_id))["result"] == {"late": True}


def cancelled(job_id: str) -> JobCancelled:
    data = JobCancelledData(token_id="a-token")
    return JobCancelled.new(job_id, data, source="gateway", traceparent=TRACEPARENT)


def expired(job_id: str) -> JobExpired:
    data = JobExpiredData(token_id="a-token", code=FailureCode.NO_PROGRESS)
    return JobExpired.new(job_id, data, source="notifier", traceparent=TRACEPARENT)


def purged(job_id: str) -> JobPurged:
    return JobPurged.new(job_id, JobPurgedData(token_id="a-token"), source="gateway", traceparent=TRACEPARENT)


async def until_handled(analyses: Any, job_id: str, status: str) -> None:
    async def look() -> bool:
        found = await analyses.find_one({"_id": job_id})
        return found is not None and found["status"] == status

    await until(look, f"analysis of {job_id} {status}")


@pytest.mark.parametrize("end", [cancelled, expired])
async def test_a_job_that_ends_while_it_waits_is_not_asked_for_when_the_server_is_back(
    broker: Broker, jobs: Any, analysis_server: AnalysisServer, end: Any
) -> None:
    token_id, job_id = new_token(), str(uuid4())
    other = Story(str(uuid4()), new_token(), uuid4().bytes)
    async with broker.overhearing() as overheard:
        async with analysis_server.away(503):
            await broker.publish(Story(job_id, token_id, uuid4().bytes).audio_stored())
            await overheard.until(job_id, AnalysisDelayed)
            asked = len(await analysis_server.requests_for(token_id))
            await broker.publish(end(job_id))
            await until_handled(jobs.database["analyses"], job_id, "cancelled")
            await broker.publish(other.audio_stored())
            await overheard.until(other.job_id, AnalysisDelayed)
        await overheard.until(other.job_id, AnalysisRequested)
        await broker.until_empty("analyzer-bridge.audio.stored.v1")
        assert not overheard.of(job_id, AnalysisRequested)
    assert len(await analysis_server.requests_for(token_id)) == asked


@pytest.mark.parametrize("end", [cancelled, expired])
async def test_an_end_that_overtakes_the_recording_stops_its_analysis(
    broker: Broker, jobs: Any, sori: Sori, analysis_server: AnalysisServer, end: Any
) -> None:
    token_id, job_id = new_token(), str(uuid4())
    await broker.publish(end(job_id))
    await until_handled(jobs.database["analyses"], job_id, "cancelled")
    await broker.publish(Story(job_id, token_id, uuid4().bytes).audio_stored())
    await sori.completed(wav(0.3, seed=120))
    assert await analysis_server.requests_for(token_id) == []


async def test_a_webhook_of_a_cancelled_job_is_kept_in_its_history(
    broker: Broker, jobs: Any, sori: Sori, analysis_server: AnalysisServer
) -> None:
    token_id = new_token("never-calls-back")
    job_id = await sori.job(wav(0.3, seed=121), token_id)
    await analysis_server.request_for(token_id)
    await broker.publish(cancelled(job_id))
    await until_handled(jobs.database["analyses"], job_id, "cancelled")
    assert (await sori.ended(job_id))["status"] == "cancelled"
    assert (await sori.webhook(job_id, {"status": "success", "result": {}})).status_code == 200

    async def kept() -> bool:
        job = await jobs.find_one({"_id": job_id})
        return AnalysisWebhookIgnored.TYPE in {entry["type"] for entry in job["history"]}

    await until(kept, "the call in the job's history")
    assert (await sori.state(job_id))["status"] == "cancelled"


async def test_a_recording_that_is_stored_after_its_job_was_purged_is_purged_again(
    broker: Broker, jobs: Any, analysis_server: AnalysisServer
) -> None:
    token_id, job_id = new_token(), str(uuid4())
    async with broker.overhearing() as overheard:
        await broker.publish(purged(job_id))
        await until_handled(jobs.database["analyses"], job_id, "purged")
        await broker.publish(Story(job_id, token_id, uuid4().bytes).audio_stored())
        await until_true(lambda: len(overheard.of(job_id, JobPurged)) == 2, "job.purged once more")
        first, again = overheard.of(job_id, JobPurged)
        assert (again.id, again.source) == (first.id, "/sori/analyzer-bridge")
    assert await analysis_server.requests_for(token_id) == []
