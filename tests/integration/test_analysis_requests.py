"""What the analysis server is asked, and what becomes of a job when it answers badly, late, twice or never."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from contracts.events import AnalysisCompleted, AnalysisFailed, AnalysisWebhookIgnored
from contracts.job import DELAYED_MESSAGE
from local_stack.stack import Stack
from tests.conftest import ANALYSIS_TIMEOUT_SECONDS
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import LANGUAGES, assert_sentence
from tests.support.broker import Broker
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.unanswered import ASKED_AGAIN_SECONDS, Unanswered, end_of_first_wait
from tests.support.waiting import until


async def test_the_analysis_is_asked_for_with_the_contracts_fields(
    stack: Stack, sori: Sori, analysis_server: AnalysisServer
) -> None:
    token_id = new_token()
    state = await sori.completed(token_id=token_id)
    request = await analysis_server.request_for(token_id)
    assert request.form.keys() == {"s3_audio_url", "webhook_url", "video_id"}
    assert request.form["s3_audio_url"] == state["s3_url"]
    assert request.webhook_url.split("?")[0] == stack.settings["WEBHOOK_URL"]
    query = parse_qs(urlsplit(request.webhook_url).query)
    assert (query["job_id"], query["attempt"]) == ([state["job_id"]], ["1"])
    # The id that the server gives itself is another, and is not trusted.
    assert request.server_job_id != state["job_id"]


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [
        ("http-500-once", 2),
        ("http-503-retry-after", 2),
        ("http-429-retry-date", 2),
        ("drops-connection-once", 2),
        ("not-json-answer", 1),
        ("webhook-before-answer", 1),
        ("slow", 1),
    ],
)
async def test_a_job_completes_although_the_analysis_server_is_troublesome(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str, requests: int
) -> None:
    token_id = new_token(behaviour)
    state = await sori.completed(token_id=token_id)
    asked = await analysis_server.requests_for(token_id)
    assert len(asked) == requests
    assert state["result"] == asked[-1].result()


@pytest.mark.parametrize(("behaviour", "seconds"), [("http-503-retry-after", 1), ("http-429-retry-date", 3)])
async def test_a_server_that_asks_for_time_is_given_it(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str, seconds: float
) -> None:
    token_id = new_token(behaviour)
    await sori.completed(token_id=token_id)
    first, second = await analysis_server.requests_for(token_id)
    assert second.at - first.at >= seconds


async def test_a_refused_request_fails_the_job_at_once(sori: Sori, analysis_server: AnalysisServer) -> None:
    token_id = new_token("http-400")
    job_id = await sori.job(token_id=token_id)
    state = await sori.ended(job_id, limit_seconds=10)
    assert (state["status"], state["error"]["code"]) == ("failed", "analysis_refused")
    for language in LANGUAGES:
        assert_sentence((await sori.state(job_id, language))["error"]["message"], language)
    assert len(await analysis_server.requests_for(token_id)) == 1


@pytest.mark.parametrize("behaviour", ["http-500", "drops-connection"])
async def test_a_job_waits_for_a_server_that_is_down(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str
) -> None:
    token_id = new_token(behaviour)
    job_id = await sori.job(token_id=token_id)
    first = await analysis_server.request_for(token_id)
    third = await analysis_server.request_for(token_id, count=3)
    # With growing delay.
    assert third.at - first.at > 1
    state = await sori.state(job_id)
    assert (state["status"], state["stage"], state["progress"]) == ("processing", "waiting", 70)
    assert state["message"] == DELAYED_MESSAGE


async def test_an_analysis_that_is_never_answered_is_asked_for_again_and_then_given_up(
    sori: Sori, analysis_server: AnalysisServer, unanswered: Unanswered
) -> None:
    first, second = await analysis_server.requests_for(unanswered.token_id)
    assert second.at >= end_of_first_wait(unanswered.overheard, unanswered.job_id, ANALYSIS_TIMEOUT_SECONDS)
    attempts = [parse_qs(urlsplit(request.webhook_url).query)["attempt"] for request in (first, second)]
    assert attempts == [["1"], ["2"]]
    assert first.form["s3_audio_url"] == second.form["s3_audio_url"]
    state = await sori.state(unanswered.job_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "analysis_timed_out")
    assert_sentence(state["error"]["message"], "ko")
    given_up = datetime.fromisoformat(state["updated_at"]) - datetime.fromisoformat(state["created_at"])
    assert given_up >= timedelta(seconds=2 * ANALYSIS_TIMEOUT_SECONDS)


async def test_a_webhook_after_the_analysis_was_given_up_changes_nothing(
    sori: Sori, broker: Broker, jobs: Any, unanswered: Unanswered
) -> None:
    before = await sori.state(unanswered.job_id)
    async with broker.overhearing() as overheard:
        for attempt in (1, 2):
            answer = await sori.webhook(unanswered.job_id, {"status": "success", "result": {}}, attempt)
            assert answer.status_code == 200
        ignored = await overheard.until(unanswered.job_id, AnalysisWebhookIgnored, 2)
        assert not overheard.of(unanswered.job_id, AnalysisCompleted)
        assert not overheard.of(unanswered.job_id, AnalysisFailed)

    async def kept() -> bool:
        job = await jobs.find_one({"_id": unanswered.job_id})
        return {event.id for event in ignored} <= {entry["event_id"] for entry in job["history"]}

    await until(kept, "both calls in the job's history")
    assert await sori.state(unanswered.job_id) == before


async def test_the_first_attempts_answer_counts_even_after_the_second_was_asked_for(
    sori: Sori, analysis_server: AnalysisServer
) -> None:
    token_id = new_token("never-calls-back")
    job_id = await sori.job(token_id=token_id)
    await analysis_server.request_for(token_id, count=2, limit_seconds=ASKED_AGAIN_SECONDS)
    assert (await sori.webhook(job_id, {"status": "success", "result": {"late": True}}, attempt=1)).status_code == 200
    state = await sori.ended(job_id)
    assert (state["status"], state["result"]) == ("completed", {"late": True})


async def test_the_same_bytes_for_the_same_token_are_answered_without_asking_again(
    sori: Sori, analysis_server: AnalysisServer
) -> None:
    token_id = new_token()
    first = await sori.completed(token_id=token_id)
    second = await sori.completed(token_id=token_id)
    assert second["job_id"] != first["job_id"]
    assert second["result"] == first["result"]
    assert second["s3_url"].endswith(f"/audio/{second['job_id']}.wav")
    assert len(await analysis_server.requests_for(token_id)) == 1


async def test_another_token_or_other_bytes_are_asked_for(sori: Sori, analysis_server: AnalysisServer) -> None:
    token_id, other = new_token(), new_token()
    await sori.completed(wav(0.4, seed=21), token_id)
    await sori.completed(wav(0.4, seed=21), other)
    await sori.completed(wav(0.4, seed=22), token_id)
    assert len(await analysis_server.requests_for(other)) == 1
    assert len(await analysis_server.requests_for(token_id)) == 2


@pytest.mark.parametrize("behaviour", ["fail", "http-400"])
async def test_a_failure_is_not_kept_for_the_next_recording(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str
) -> None:
    token_id = new_token(behaviour)
    for _ in range(2):
        assert (await sori.ended(await sori.job(token_id=token_id)))["status"] == "failed"
    assert len(await analysis_server.requests_for(token_id)) == 2


async def test_trouble_with_one_job_does_not_hold_up_others(sori: Sori, analysis_server: AnalysisServer) -> None:
    stuck = [new_token(behaviour) for behaviour in ("drops-connection", "http-500", "never-calls-back") * 4]
    await asyncio.gather(*(sori.job(token_id=token_id) for token_id in stuck))
    await asyncio.gather(*(analysis_server.request_for(token_id) for token_id in stuck))
    assert (await sori.ended(await sori.job(), limit_seconds=10))["status"] == "completed"
