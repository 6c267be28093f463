"""The webhook: only who was given the address can call it, and every shape of body means what it means."""

import hmac
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import webhook
from contracts.events import JsonObject
from contracts.failures import FailureCode
from contracts.webhook import Failure, Success
from tests.unit.stories import JOB_ID

SECRET = "0123456789abcdef0123"
RESULT: JsonObject = {"score": 87.5, "words": [{"word": "소리", "start": None}]}


def is_valid(attempt: str, given_signature: str, *, secret: str = SECRET, job_id: str = JOB_ID) -> bool:
    return webhook.signature_is_valid(secret, job_id, attempt, given_signature)


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
    ],
)
def test_each_shape_of_success_gives_its_result(body: dict[str, Any]) -> None:
    assert webhook.outcome(body) == Success(RESULT)


def test_an_empty_result_is_a_result() -> None:
    assert webhook.outcome({"status": "completed", "result": {}}) == Success({})


@pytest.mark.parametrize("status", ["failed", "Failed", "failure", "error"])
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
    [
        {},
        {"status": None},
        {"status": 200, "result": RESULT},
        {"status": "done", "result": RESULT},
        {"status": ["success"], "result": RESULT},
        {"status": "processing"},
        {"result": RESULT},
        {"status": "success"},
        {"status": "success", "result": None},
        {"status": "success", "result": "all good"},
        {"status": "completed", "result": [1, 2]},
        {"status": "completed", "analysis_results": 5},
    ],
)
def test_a_body_that_no_shape_fits_fails_the_job_as_invalid(body: dict[str, Any]) -> None:
    outcome = webhook.outcome(body)
    assert isinstance(outcome, Failure)
    assert outcome.code == FailureCode.RESULT_INVALID
    assert outcome.detail


@given(
    st.dictionaries(
        st.sampled_from(["status", "result", "analysis_results", "error", "job_id"]),
        st.none() | st.text() | st.integers() | st.lists(st.none()) | st.dictionaries(st.text(), st.text()),
    )
)
def test_every_json_object_has_a_meaning(body: dict[str, Any]) -> None:
    outcome = webhook.outcome(body)
    if isinstance(outcome, Success):
        assert outcome.result in (body.get("result"), body.get("analysis_results"))
    else:
        assert len(outcome.detail) <= 500
