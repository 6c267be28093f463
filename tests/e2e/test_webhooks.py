"""The analysis server's calls: every body that servers send is understood, and what must not count is refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.analysis_server import AnalysisServer
from tests.support.answers import LANGUAGES, assert_problem, assert_sentence
from tests.support.fake_analysis_server import FAILURE
from tests.support.sori import Sori, State, new_token

PATHS = ("/tokens/webhook/analysis-complete", "/webhook/analysis-complete")
RESULT = {"score": 87.5, "words": [{"text": "안녕", "start": 0.1}], "note": None}
SHAPES: dict[str, dict[str, Any]] = {
    "success": {"status": "success", "result": RESULT},
    "completed": {"job_id": "17", "status": "completed", "result": RESULT},
    "analysis_results": {
        "job_id": "17",
        "status": "completed",
        "video_id": "test-token",
        "s3_audio_url": "s3://sori/audio/a.wav",
        "analysis_results": RESULT,
    },
}
FAILED = {"job_id": "17", "status": "failed", "error": "Traceback: no speech found"}
MAX_RESULT_BYTES = 1024 * 1024
ALONE = {"Connection": "close"}
"""After an answer that came before the body was read, nginx may close a connection that was to be kept."""
UNKNOWN_JOB = "5c1f0d51-9a0e-4f4c-8d0f-0e2a4c3b7d10"

WaitingJob = Callable[[], Awaitable[str]]


@pytest.fixture
def waiting_job(sori: Sori, analysis_server: AnalysisServer) -> WaitingJob:
    """Make a job whose analysis was asked for and that nobody but the test answers."""

    async def make() -> str:
        token_id = new_token("never-calls-back")
        job_id = await sori.job(token_id=token_id)
        await analysis_server.request_for(token_id)
        await sori.reached(job_id, 90)
        return job_id

    return make


async def untouched(sori: Sori, job_id: str, before: State) -> None:
    assert await sori.state(job_id) == before


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_webhook_signed_by_hand_completes_the_job_in_every_shape(
    sori: Sori, waiting_job: WaitingJob, shape: str, path: str
) -> None:
    job_id = await waiting_job()
    answer = await sori.client.post(sori.webhook_url(job_id, path=path), json=SHAPES[shape])
    assert (answer.status_code, answer.json()) == (200, {"received": True, "job_id": job_id})
    state = await sori.ended(job_id)
    assert (state["status"], state["progress"], state["result"]) == ("completed", 100, RESULT)


@pytest.mark.parametrize("path", PATHS)
async def test_a_failure_reported_by_webhook_fails_the_job(sori: Sori, waiting_job: WaitingJob, path: str) -> None:
    job_id = await waiting_job()
    answer = await sori.client.post(sori.webhook_url(job_id, path=path), json=FAILED)
    assert (answer.status_code, answer.json()) == (200, {"received": True, "job_id": job_id})
    state = await sori.ended(job_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "analysis_failed")
    for language in LANGUAGES:
        assert_sentence((await sori.state(job_id, language))["error"]["message"], language)


@pytest.mark.parametrize("behaviour", ["shape-success", "shape-completed-result", "shape-analysis-results"])
async def test_an_analysis_server_that_answers_in_any_shape_completes_the_job(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str
) -> None:
    token_id = new_token(behaviour)
    state = await sori.completed(token_id=token_id)
    request = await analysis_server.request_for(token_id)
    assert state["result"] == request.result()
    assert (await analysis_server.webhook_of(request)).status == 200


async def test_a_failure_that_the_analysis_server_reports_fails_the_job_without_its_words(sori: Sori) -> None:
    state = await sori.ended(await sori.job(token_id=new_token("shape-failed")))
    assert (state["status"], state["error"]["code"]) == ("failed", "analysis_failed")
    assert FAILURE not in json.dumps(state)


async def test_a_result_is_kept_as_it_came(sori: Sori, waiting_job: WaitingJob) -> None:
    deep: dict[str, Any] = {}
    for _ in range(80):
        deep = {"in": deep}
    result = {
        "$set": {"a.b": 1, "": None},
        "큰 수": 2**80,
        "작은 수": 1.5e-300,
        "글": "줄\n바꿈 \u2028 \U0001f3a4 \x01",
        "deep": deep,
        "list": [None, True, [], {}],
    }
    job_id = await waiting_job()
    await sori.webhook(job_id, {"status": "success", "result": result})
    assert (await sori.ended(job_id))["result"] == result


@pytest.mark.parametrize(
    ("given", "described"),
    [
        ("", "missing"),
        ("&signature=", "empty"),
        ("&signature=" + "0" * 64, "wrong"),
        ("&signature=%ED%95%9C%EA%B8%80", "not ASCII"),
        ("&signature=%00%ff", "no text"),
    ],
)
async def test_a_bad_or_missing_signature_is_401_and_changes_nothing(
    sori: Sori, waiting_job: WaitingJob, given: str, described: str
) -> None:
    job_id = await waiting_job()
    before = await sori.state(job_id)
    for path in PATHS:
        for language, header in LANGUAGES.items():
            url = f"{sori.url}{path}?job_id={job_id}&attempt=1{given}"
            answer = await sori.client.post(url, json=SHAPES["success"], headers={"Accept-Language": header} | ALONE)
            assert_problem(answer, 401, "signature_invalid", language)
    await untouched(sori, job_id, before)


async def test_a_signature_counts_for_its_own_job_and_attempt_only(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id, other = await asyncio.gather(waiting_job(), waiting_job())
    before = await sori.state(job_id)
    signed = sori.webhook_url(other)
    for url in (signed.replace(other, job_id), sori.webhook_url(job_id).replace("attempt=1", "attempt=2")):
        assert_problem(await sori.client.post(url, json=SHAPES["success"], headers=ALONE), 401, "signature_invalid")
    await untouched(sori, job_id, before)


async def test_the_analysis_servers_own_signature_is_checked(sori: Sori, analysis_server: AnalysisServer) -> None:
    token_id = new_token("wrong-signature")
    job_id = await sori.job(token_id=token_id)
    request = await analysis_server.request_for(token_id)
    assert (await analysis_server.webhook_of(request)).status == 401
    assert (await sori.reached(job_id, 90))["status"] == "processing"


@pytest.mark.parametrize("job_id", [UNKNOWN_JOB, "nobody", "", "%00", "한글"])
async def test_a_signed_webhook_for_an_unknown_job_is_404_and_creates_none(sori: Sori, job_id: str, jobs: Any) -> None:
    before = await jobs.count_documents({})
    for language, header in LANGUAGES.items():
        answer = await sori.client.post(
            sori.webhook_url(job_id), json=SHAPES["success"], headers={"Accept-Language": header} | ALONE
        )
        # An id that is no text can have no signature either.
        assert_problem(answer, *((401, "signature_invalid") if job_id == "%00" else (404, "job_not_found")), language)
    assert await jobs.count_documents({}) == before


@pytest.mark.parametrize(
    "body",
    [b"", b"analysis complete", b"[1, 2]", b'"text"', b"null", b'{"status": "success", "result"', b"\xff\xfe\x00"],
    ids=["nothing", "words", "a list", "a text", "null", "half an object", "no text"],
)
async def test_a_webhook_that_is_no_json_object_is_400_and_changes_nothing(
    sori: Sori, waiting_job: WaitingJob, body: bytes
) -> None:
    job_id = await waiting_job()
    before = await sori.state(job_id)
    for language, header in LANGUAGES.items():
        headers = {"Accept-Language": header, "Content-Type": "application/json"}
        answer = await sori.client.post(sori.webhook_url(job_id), content=body, headers=headers)
        assert_problem(answer, 400, "webhook_not_json", language)
    await untouched(sori, job_id, before)
    await sori.webhook(job_id, SHAPES["success"])
    assert (await sori.ended(job_id))["status"] == "completed"


@pytest.mark.parametrize("extra", [1, 20 * 1024, 3 * 1024 * 1024], ids=["a byte", "20 KiB", "3 MiB"])
async def test_a_result_over_the_limit_is_413_and_fails_the_job_at_once(
    sori: Sori, waiting_job: WaitingJob, extra: int
) -> None:
    job_id = await waiting_job()
    answer = await sori.webhook(job_id, {"status": "success", "result": result_of(MAX_RESULT_BYTES + extra)})
    assert_problem(answer, 413, "result_too_large")
    state = await sori.ended(job_id, limit_seconds=5)
    assert (state["status"], state["error"]["code"]) == ("failed", "result_too_large")
    assert "result" not in state


async def test_a_result_of_exactly_the_limit_is_kept(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    result = result_of(MAX_RESULT_BYTES)
    assert (await sori.webhook(job_id, {"status": "success", "result": result})).status_code == 200
    assert (await sori.ended(job_id))["result"] == result


async def test_an_analysis_server_that_sends_too_much_fails_the_job_at_once(sori: Sori) -> None:
    state = await sori.ended(await sori.job(token_id=new_token("huge-result")), limit_seconds=10)
    assert (state["status"], state["error"]["code"]) == ("failed", "result_too_large")


@pytest.mark.parametrize(
    "body",
    [{"status": "success", "result": [1]}, {"status": "success"}, {"status": "thinking", "result": {}}, {}],
    ids=["a list as result", "no result", "unknown status", "nothing"],
)
async def test_a_body_of_no_known_shape_fails_the_job_with_a_sentence(
    sori: Sori, waiting_job: WaitingJob, body: dict[str, Any]
) -> None:
    job_id = await waiting_job()
    assert (await sori.webhook(job_id, body)).status_code == 200
    state = await sori.ended(job_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "result_invalid")
    assert_sentence(state["error"]["message"], "ko")


async def test_a_repeated_webhook_is_answered_200_and_changes_nothing(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    answers = await asyncio.gather(*(sori.webhook(job_id, SHAPES["success"]) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    after = await sori.ended(job_id)
    assert (await sori.webhook(job_id, SHAPES["success"])).json() == {"received": True, "job_id": job_id}
    await untouched(sori, job_id, after)


@pytest.mark.parametrize(
    ("first", "later"),
    [(SHAPES["success"], FAILED), (FAILED, SHAPES["success"]), (SHAPES["success"], {"status": "odd"})],
    ids=["failed after completed", "completed after failed", "odd after completed"],
)
async def test_a_webhook_after_the_jobs_end_is_answered_200_and_changes_nothing(
    sori: Sori, waiting_job: WaitingJob, jobs: Any, first: dict[str, Any], later: dict[str, Any]
) -> None:
    job_id = await waiting_job()
    await sori.webhook(job_id, first)
    ended = await sori.ended(job_id)
    document = await jobs.find_one({"_id": job_id})
    # The job after this one sees that the late call has been dealt with.
    assert (await sori.webhook(job_id, later)).status_code == 200
    await sori.completed()
    await untouched(sori, job_id, ended)
    assert (await jobs.find_one({"_id": job_id}))["revision"] == document["revision"]


async def test_too_large_a_result_after_the_jobs_end_changes_nothing(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    await sori.webhook(job_id, SHAPES["success"])
    ended = await sori.ended(job_id)
    late = {"status": "success", "result": result_of(MAX_RESULT_BYTES + 1)}
    assert_problem(await sori.webhook(job_id, late), 413, "result_too_large")
    await sori.completed()
    await untouched(sori, job_id, ended)


@pytest.mark.parametrize("behaviour", ["calls-twice", "contradicts-itself"])
async def test_an_analysis_server_that_calls_twice_is_answered_200_both_times_and_the_first_call_counts(
    sori: Sori, analysis_server: AnalysisServer, behaviour: str
) -> None:
    token_id = new_token(behaviour)
    job_id = await sori.job(token_id=token_id)
    request = await analysis_server.request_for(token_id)
    calls = [await analysis_server.webhook_of(request, count) for count in (1, 2)]
    assert [call.status for call in calls] == [200, 200]
    state = await sori.ended(job_id)
    assert (state["status"], state["result"]) == ("completed", request.result())


def result_of(size_bytes: int) -> dict[str, str]:
    """A result whose compact JSON text has exactly this size."""
    empty = len(json.dumps({"blob": ""}, separators=(",", ":")))
    return {"blob": "x" * (size_bytes - empty)}
