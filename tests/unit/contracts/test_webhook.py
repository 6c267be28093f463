"""The webhook: only who was given the address can call it, and every shape of body means what it means."""

import hmac
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import webhook
from contracts.events import JsonObject, to_json
from contracts.failures import FailureCode
from contracts.webhook import Failure, Interim, Success
from tests.unit import stories
from tests.unit.stories import JOB_ID

SECRET = "0123456789abcdef0123"
RESULT: JsonObject = {"score": 87.5, "words": [{"word": "소리", "start": None}]}

KEYS = st.sampled_from(
    ["status", "state", "result", "analysis_results", "data", "error", "job_id", "progress", "success"]
)
_PLAIN = st.none() | st.booleans() | st.text() | st.integers() | st.floats() | st.lists(st.none())
_PLAIN |= st.sampled_from(["success", "failed", "processing", "{}", '{"status": "done"}'])
VALUES = st.recursive(_PLAIN, lambda inner: st.dictionaries(KEYS | st.text(), inner, max_size=4), max_leaves=8)


def is_valid(attempt: str, given_signature: str, *, secret: str = SECRET, job_id: str = JOB_ID) -> bool:
    return webhook.signature_is_valid([secret], job_id, attempt, given_signature)


def test_a_signature_is_the_hmac_that_anyone_can_compute() -> None:
    expected = hmac.new(SECRET.encode(), f"{JOB_ID}.2".encode(), "sha256").hexdigest()
    assert webhook.signature(SECRET, JOB_ID, 2) == expected
    assert is_valid("2", expected)


@pytest.mark.parametrize(
    "other",
    [
        {"secret": SECRET + "x"},
        {"job_id": JOB_ID.replace("7", "8")},
        {"job_id": JOB_ID[:-1]},
    ],
)
def test_a_signature_is_good_for_one_secret_and_one_job(other: dict[str, str]) -> None:
    assert not is_valid("1", webhook.signature(SECRET, JOB_ID, 1), **other)


@pytest.mark.parametrize("secrets", [["new", "old"], ["old", "new"], ["old"]])
def test_a_signature_under_any_of_the_secrets_counts_while_these_change(secrets: list[str]) -> None:
    assert webhook.signature_is_valid(secrets, JOB_ID, "1", webhook.signature("old", JOB_ID, 1))
    assert not webhook.signature_is_valid(secrets, JOB_ID, "1", webhook.signature("older", JOB_ID, 1))
    assert not webhook.signature_is_valid([], JOB_ID, "1", webhook.signature("old", JOB_ID, 1))


def test_a_signature_is_good_for_one_attempt() -> None:
    assert not is_valid("2", webhook.signature(SECRET, JOB_ID, 1))


@example("é" * 64)
@example("\ud800")
@example("")
@example("0" * 64)
@example("07")
@given(st.text())
def test_no_text_breaks_the_check(junk: str) -> None:
    assert not is_valid("1", junk)
    assert is_valid(junk, webhook.signature(SECRET, JOB_ID, 7)) == (junk == "7")


@pytest.mark.parametrize("attempt", ["", "-1", "+1", "1.0", "1 ", " 1", "１", "²", "1_0", "0x1", "9" * 10, "9" * 5000])
def test_an_attempt_is_a_plain_number(attempt: str) -> None:
    signatures = {webhook.signature(SECRET, JOB_ID, number) for number in (0, 1, 2, 10, -1)}
    assert not any(is_valid(attempt, signature) for signature in signatures)


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(ours: bytes, theirs: bytes) -> bool:
        compared.append((ours, theirs))
        return False

    monkeypatch.setattr("contracts.webhook.hmac.compare_digest", compare)
    assert not is_valid("1", "junk")
    assert compared == [(webhook.signature(SECRET, JOB_ID, 1).encode(), b"junk")]


@pytest.mark.parametrize("base", ["http://host/hook", "http://host/hook?tenant=7"])
def test_an_address_carries_job_attempt_and_signature(base: str) -> None:
    made = webhook.address(base, SECRET, JOB_ID, 3)
    query = parse_qs(urlsplit(made).query)
    assert made.startswith(base)
    assert (query["job_id"], query["attempt"]) == ([JOB_ID], ["3"])
    assert is_valid(query["attempt"][0], query["signature"][0])
    assert query.get("tenant") == (["7"] if "?" in base else None)
    assert SECRET not in made


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "result": RESULT},
        {"job_id": "17", "status": "completed", "result": RESULT},
        {
            "job_id": "17",
            "status": "completed",
            "video_id": "t",
            "s3_audio_url": "s3://b/k",
            "analysis_results": RESULT,
        },
        {"status": "COMPLETED", "result": RESULT},
        {"status": "success", "result": RESULT, "analysis_results": {"other": 1}},
        {"status": "success", "result": RESULT, "error": "ignored"},
        {"status": "SUCCESS", "analysisResults": RESULT},
        {"Status": "Completed", "Result": RESULT},
        {"STATUS": "ok", "Analysis-Result": RESULT},
        {"success": "true", "data": RESULT},
        {"Success": True, "Payload": RESULT},
        {"data": {"analysisResult": RESULT}},
        {"status": "success", "Result": None, "result": RESULT},
    ],
)
def test_each_shape_of_success_gives_its_result(body: dict[str, Any]) -> None:
    assert webhook.outcome(body) == Success(RESULT)


def test_an_empty_result_is_a_result() -> None:
    assert webhook.outcome({"status": "completed", "result": {}}) == Success({})


@pytest.mark.parametrize(
    "status",
    ["success", "succeeded", "completed", "complete", "done", "finished", "ok", "SUCCEEDED", " Done\n", "Successful"],
)
def test_every_word_for_a_success_is_understood(status: str) -> None:
    assert webhook.outcome({"status": status, "result": RESULT}) == Success(RESULT)


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success", "result": None, "analysis_results": RESULT},
        {"status": "success", "result": [], "analysis_results": RESULT},
        {"status": "success", "result": to_json(RESULT)},
        {"status": "completed", "analysis_results": "\ufeff " + json.dumps(RESULT, ensure_ascii=True)},
        {"status": "success", "result": json.dumps(json.dumps(RESULT))},
        {"status": "success", "results": RESULT},
        {"status": "succeeded", "output": RESULT},
        {"status": "success", "data": RESULT},
        {"status": "success", "data": {"result": RESULT}},
        {"event": "analysis.finished", "data": {"status": "Succeeded", "output": RESULT}},
        {"type": "webhook", "payload": {"job": {"state": "SUCCESS", "result": RESULT}}, "job": {"result": RESULT}},
        {"state": "SUCCESS", "result": RESULT},
        {"success": True, "result": RESULT},
        {"status": 200, "result": RESULT},
        {"status": ["success"], "result": RESULT},
        {"status": "scored", "result": RESULT},
        {"status": "", "analysis_results": RESULT},
        {"result": RESULT},
    ],
)
def test_a_result_is_found_wherever_servers_put_it(body: dict[str, Any]) -> None:
    assert webhook.outcome(body) == Success(RESULT)


def test_a_lone_surrogate_in_a_result_that_is_json_text_is_replaced() -> None:
    body: JsonObject = {"status": "success", "result": r'{"a\ud83d": ["\udc00\ud83d", "\ud83d\ude00", "\\ud83d"]}'}
    assert webhook.outcome(body) == Success({"a\ufffd": ["\ufffd\ufffd", "\U0001f600", "\\ud83d"]})


@pytest.mark.parametrize(
    "status",
    ["failed", "Failed", "failure", "error", "errored", "ERROR ", "canceled", "cancelled", "aborted", "Timed Out"],
)
def test_a_failure_keeps_what_the_server_said_for_the_log(status: str) -> None:
    assert webhook.outcome({"job_id": "17", "status": status, "error": "no speech"}) == Failure(
        FailureCode.ANALYSIS_FAILED, "no speech"
    )


@pytest.mark.parametrize("error", [None, {"code": 5}, ["x"], 7, "y" * 10_000])
def test_a_failure_without_a_plain_sentence_is_a_failure_too(error: object) -> None:
    body: dict[str, Any] = {"status": "failed", "error": error}
    outcome = webhook.outcome(body)
    assert isinstance(outcome, Failure)
    assert outcome.code == FailureCode.ANALYSIS_FAILED
    assert len(outcome.detail) <= 500


def test_a_failure_with_a_result_is_still_a_failure() -> None:
    """The seed stored a failed webhook as completed."""
    assert isinstance(webhook.outcome({"status": "failed", "error": "x", "result": RESULT}), Failure)


@pytest.mark.parametrize(
    "body",
    [{"success": False, "error": "no speech"}, {"data": {"status": "failed", "error": "no speech"}, "event": "end"}],
)
def test_a_failure_is_found_wherever_servers_put_it(body: dict[str, Any]) -> None:
    assert webhook.outcome(body) == Failure(FailureCode.ANALYSIS_FAILED, "no speech")


@pytest.mark.parametrize(
    "body",
    [
        {"status": "success"},
        {"status": "success", "result": None},
        {"status": "success", "result": "all good"},
        {"status": "done", "result": "{broken"},
        {"status": "completed", "result": [1, 2]},
        {"status": "completed", "analysis_results": 5},
        {"success": True},
    ],
)
def test_a_success_without_a_result_fails_the_job_as_invalid(body: dict[str, Any]) -> None:
    outcome = webhook.outcome(body)
    assert isinstance(outcome, Failure)
    assert outcome.code == FailureCode.RESULT_INVALID
    assert outcome.detail


@pytest.mark.parametrize(
    ("body", "progress"),
    [
        ({"status": "processing", "progress": 40}, 40),
        ({"status": "processing"}, None),
        ({"status": "in_progress", "progress": "40"}, 40),
        ({"status": "IN PROGRESS", "percent": "40.9 %"}, 40),
        ({"status": "running", "progress": 0.29}, 29),
        ({"status": "running", "progress": "0.4"}, 40),
        ({"status": "running", "progress": "0.4%"}, 0),
        ({"status": "running", "progress": 1}, 1),
        ({"status": "running", "progress": 0}, 0),
        ({"status": "running", "progress": -3}, 0),
        ({"status": "running", "progress": 10**400}, 100),
        ({"status": "running", "progress": float("nan")}, None),
        ({"status": "running", "progress": True}, None),
        ({"status": "running", "progress": "half"}, None),
        ({"status": "running", "progress": {"percent": 12.5}}, 12),
        ({"status": "running", "data": {"progress": 7}}, 7),
        ({"status": "running", "progress": 50, "result": {"partial": True}}, 50),
        ({"status": "thinking", "progress": 5}, 5),
        ({"status": "thinking", "result": None}, None),
        ({"status": "thinking", "data": {"step": 2}}, None),
        ({"status": None}, None),
        ({"progress": 60}, 60),
        ({"percentComplete": 60}, 60),
        ({"Status": "Running", "Data": {"progressPercent": 60}}, 60),
        ({"error": "a warning"}, None),
        ({}, None),
    ],
)
def test_what_names_no_end_and_has_no_result_is_interim(body: dict[str, Any], progress: int | None) -> None:
    outcome = webhook.outcome(body)
    assert isinstance(outcome, Interim)
    assert outcome.progress == progress


def test_an_unknown_status_is_kept_for_the_log_but_not_all_of_it() -> None:
    outcome = webhook.outcome({"status": "x" * 10_000})
    assert isinstance(outcome, Interim)
    assert outcome.status == "x" * 40


@given(stories.JSON_OBJECTS | st.dictionaries(KEYS, VALUES))
def test_every_json_object_has_a_meaning_and_its_essence_the_same(body: dict[str, Any]) -> None:
    said = webhook.outcome(body)
    again = webhook.outcome(webhook.essence(said))
    if isinstance(said, Interim):
        assert isinstance(again, Interim)
        assert again.progress == said.progress is None or 0 <= (said.progress or 0) <= 100
    elif isinstance(said, Failure):
        assert isinstance(again, Failure)
        assert again.code == said.code
        assert len(said.detail) <= 500
    else:
        assert again == said
