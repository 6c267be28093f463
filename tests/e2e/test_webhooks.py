"""The analysis server's calls: every body that servers send is understood, and what must not count is refused."""

import asyncio
import codecs
import gzip
import itertools
import json
import time
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from local_stack.stack import Stack
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import LANGUAGES, assert_problem, assert_sentence
from tests.support.fake_analysis_server import FAILURE
from tests.support.raw_http import form, raw_connection
from tests.support.raw_http import part as file_part
from tests.support.sori import RECORDING, Sori, State, new_token
from tests.support.sse import Stream, listening

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

JSON = {"Content-Type": "application/json"}
JAVA = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA", "Upgrade": "h2c"}
"""As Java's HttpClient offers HTTP/2 with each first request."""
SUCCESS = json.dumps({"status": "success", "result": RESULT}).encode()
GENEROUSLY_READ: dict[str, tuple[bytes, dict[str, str], dict[str, Any]]] = {
    "a byte order mark": (codecs.BOM_UTF8 + SUCCESS, {}, RESULT),
    "a lone surrogate": (rb'{"status":"success","result":{"t":"\ud83d"}}', {}, {"t": "\ufffd"}),
    "a lone surrogate in a key": (rb'{"status":"success","result":{"\udc00":["\ud83d"]}}', {}, {"\ufffd": ["\ufffd"]}),
    "result null": (json.dumps({"status": "success", "result": None, "analysis_results": RESULT}).encode(), {}, RESULT),
    "JSON text": (json.dumps({"status": "success", "result": json.dumps(RESULT)}).encode(), {}, RESULT),
    "without a status": (json.dumps({"result": RESULT}).encode(), {}, RESULT),
    "gzip": (gzip.compress(SUCCESS), {"Content-Encoding": "gzip"}, RESULT),
    "deflate": (zlib.compress(SUCCESS), {"Content-Encoding": "deflate"}, RESULT),
    "all in ASCII": (
        json.dumps({"status": "success", "result": {"t": "소" * (MAX_RESULT_BYTES // 3 - 100)}}).encode(),
        {},
        {"t": "소" * (MAX_RESULT_BYTES // 3 - 100)},
    ),
}
"""What is sent, with its headers, and the result that it has."""

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


async def timed(stream: Stream) -> list[tuple[float, State]]:
    """All that is heard, and when."""
    return [(time.monotonic(), message.state) async for message in stream.messages()]


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


@pytest.mark.parametrize("sent", GENEROUSLY_READ)
async def test_a_good_result_completes_the_job_however_it_is_sent(
    sori: Sori, waiting_job: WaitingJob, sent: str
) -> None:
    content, headers, result = GENEROUSLY_READ[sent]
    job_id = await waiting_job()
    answer = await sori.client.post(sori.webhook_url(job_id), content=content, headers=JSON | headers)
    assert (answer.status_code, answer.json()) == (200, {"received": True, "job_id": job_id})
    state = await sori.ended(job_id)
    assert (state["status"], state["result"]) == ("completed", result)


@pytest.mark.parametrize("status", ["succeeded", "done", "Finished", "unheard-of"])
async def test_another_word_for_a_success_completes_the_job(sori: Sori, waiting_job: WaitingJob, status: str) -> None:
    job_id = await waiting_job()
    assert (await sori.webhook(job_id, {"status": status, "result": RESULT})).status_code == 200
    assert (await sori.ended(job_id))["result"] == RESULT


@pytest.mark.parametrize("status", ["error", "errored", "canceled", "Aborted "])
async def test_another_word_for_a_failure_fails_the_job(sori: Sori, waiting_job: WaitingJob, status: str) -> None:
    job_id = await waiting_job()
    assert (await sori.webhook(job_id, {"status": status, "error": "no speech"})).status_code == 200
    state = await sori.ended(job_id)
    assert (state["status"], state["error"]["code"]) == ("failed", "analysis_failed")


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (json.dumps(SHAPES["success"]).encode("utf-16"), "webhook_not_json", "UTF-8"),
        (json.dumps(SHAPES["success"]).encode("utf-32"), "webhook_not_json", "UTF-8"),
        (b'{"status": "success", "result"', "webhook_not_json", "not valid JSON"),
        (b"[1, 2]", "webhook_not_json", "not a JSON object"),
        (b'{"status": "success", "result": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001, "webhook_not_json", "deeply"),
        (gzip.compress(json.dumps(SHAPES["success"]).encode())[:-9], "webhook_not_json", "damaged"),
        (b'{"status": "processing", "log": "' + b"x" * 8 * MAX_RESULT_BYTES + b'"}', "body_too_large", "size"),
    ],
    ids=["UTF-16", "UTF-32", "half an object", "a list", "deep", "damaged", "large"],
)
async def test_what_cannot_be_read_is_told_what_is_wrong_and_ends_nothing(
    sori: Sori, waiting_job: WaitingJob, content: bytes, code: str, said: str
) -> None:
    job_id = await waiting_job()
    before = await sori.state(job_id)
    headers = JSON | ALONE | {"Accept-Language": "en"}
    answer = await sori.client.post(sori.webhook_url(job_id), content=content, headers=headers)
    assert_problem(answer, 413 if code == "body_too_large" else 400, code, "en")
    assert said in answer.json()["detail"]
    await untouched(sori, job_id, before)
    await sori.webhook(job_id, SHAPES["success"])
    assert (await sori.ended(job_id))["status"] == "completed"


async def test_an_encoding_that_nobody_knows_is_415_and_ends_nothing(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    answer = await sori.client.post(
        sori.webhook_url(job_id), content=b"\x0b\x02", headers=JSON | ALONE | {"Content-Encoding": "br"}
    )
    assert_problem(answer, 415, "encoding_unsupported")
    assert answer.headers["accept-encoding"] == "gzip, deflate"
    await sori.webhook(job_id, SHAPES["success"])
    assert (await sori.ended(job_id))["status"] == "completed"


async def test_what_unpacks_to_far_too_large_a_result_is_413_and_fails_the_job(
    sori: Sori, waiting_job: WaitingJob
) -> None:
    job_id = await waiting_job()
    bomb = gzip.compress(json.dumps({"status": "success", "result": result_of(200 * MAX_RESULT_BYTES)}).encode())
    headers = JSON | ALONE | {"Content-Encoding": "gzip"}
    answer = await sori.client.post(sori.webhook_url(job_id), content=bomb, headers=headers)
    assert_problem(answer, 413, "result_too_large")
    assert (await sori.ended(job_id))["error"]["code"] == "result_too_large"


async def test_interim_calls_end_nothing_and_their_progress_is_shown_once_a_second_at_most(
    sori: Sori, waiting_job: WaitingJob, jobs: Any
) -> None:
    job_id = await waiting_job()
    async with listening(sori.client, sori.progress_url(job_id)) as stream:
        heard = asyncio.create_task(timed(stream))
        for percent in range(0, 60, 2):
            answer = await sori.webhook(job_id, {"status": "processing", "progress": percent})
            assert (answer.status_code, answer.json()) == (200, {"received": True, "job_id": job_id})
        for body in ({"status": "thinking"}, {"status": "processing", "progress": "much"}, {"progress": 10}, {}):
            assert (await sori.webhook(job_id, body)).status_code == 200
        shown = await sori.reached(job_id, 95)
        assert (shown["status"], shown["stage"], shown["progress"]) == ("processing", "waiting", 95)
        await sori.webhook(job_id, SHAPES["success"])
        told = await heard
    assert (await sori.ended(job_id))["result"] == RESULT
    progress = [state["progress"] for _, state in told]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (90, 100)
    assert told[-1][1]["status"] == "completed"
    moments = [moment for moment, state in told if 90 < state["progress"] < 100]
    assert all(later - earlier > 0.9 for earlier, later in itertools.pairwise(moments)), moments
    document = await jobs.find_one({"_id": job_id})
    assert sum(line["type"] == "analysis.progressed.v1" for line in document["history"]) == len(moments)


async def test_an_interim_call_after_the_jobs_end_changes_nothing(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    await sori.webhook(job_id, SHAPES["success"])
    ended = await sori.ended(job_id)
    assert (await sori.webhook(job_id, {"status": "processing", "progress": 40})).status_code == 200
    await sori.completed()
    await untouched(sori, job_id, ended)


@pytest.mark.parametrize("part", ["edge", "gateway-1"])
async def test_a_call_of_javas_http_client_is_read_which_offers_http_2(
    sori: Sori, stack: Stack, waiting_job: WaitingJob, part: str
) -> None:
    job_id = await waiting_job()
    body = json.dumps(SHAPES["success"]).encode()
    address = urlsplit(sori.webhook_url(job_id))
    async with raw_connection(stack.parts[part].address) as connection:
        await connection.begin(f"{address.path}?{address.query}", JSON | JAVA | {"Content-Length": str(len(body))})
        await connection.send(body)
        answer = await connection.answer()
    assert (answer.status, answer.json()) == (200, {"received": True, "job_id": job_id})
    assert (await sori.ended(job_id))["result"] == RESULT


@pytest.mark.parametrize("part", ["edge", "gateway-1"])
async def test_an_upload_of_javas_http_client_is_read_which_offers_http_2(sori: Sori, stack: Stack, part: str) -> None:
    body = form(file_part(RECORDING))
    async with raw_connection(stack.parts[part].address) as connection:
        await connection.begin_upload(new_token(), JAVA | {"Content-Length": str(len(body))})
        await connection.send(body)
        answer = await connection.answer()
    assert answer.status == 202
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("part", ["gateway-1", "uploader-1", "analyzer-bridge-1", "notifier-1"])
async def test_no_service_takes_a_body_beside_an_offer_of_http_2_for_another_request(stack: Stack, part: str) -> None:
    async with raw_connection(stack.parts[part].address) as connection:
        await connection.begin("/health/ready", JAVA | {"Content-Length": "5"}, method="GET")
        await connection.send(b"hello")
        assert (await connection.answer()).status == 200
        await connection.begin("/health/ready", {}, method="GET")
        assert (await connection.answer()).status == 200


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


async def test_a_result_that_is_too_large_to_buffer_fails_the_job_at_once(sori: Sori, waiting_job: WaitingJob) -> None:
    job_id = await waiting_job()
    answer = await sori.webhook(job_id, {"status": "success", "result": result_of(20 * MAX_RESULT_BYTES)})
    assert_problem(answer, 413, "result_too_large")
    assert (await sori.ended(job_id, limit_seconds=5))["error"]["code"] == "result_too_large"


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
    [{"status": "success", "result": [1]}, {"status": "done", "result": "all good"}, {"status": "success"}],
    ids=["a list as result", "a sentence as result", "no result"],
)
async def test_a_success_without_a_readable_result_fails_the_job_with_a_sentence(
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
