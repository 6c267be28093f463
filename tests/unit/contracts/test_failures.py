"""Failure codes and problem bodies speak Korean and English, by the caller's Accept-Language."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import problems
from contracts.failures import FailureCode, Language, preferred_language, sentence
from contracts.problems import ProblemKind

HANGUL = re.compile("[가-힣]")
KINDS = [kind for kind in vars(problems).values() if isinstance(kind, ProblemKind)]
LANGUAGES: tuple[Language, ...] = ("ko", "en")


@pytest.mark.parametrize("code", FailureCode)
def test_every_failure_has_a_sentence_in_both_languages(code: FailureCode) -> None:
    korean, english = sentence(code, "ko"), sentence(code, "en")
    assert HANGUL.search(korean)
    assert not HANGUL.search(english)
    assert english[0].isupper()
    assert (korean[-1], english[-1]) == (".", ".")


def test_no_two_failures_say_the_same() -> None:
    for language in LANGUAGES:
        assert len({sentence(code, language) for code in FailureCode}) == len(FailureCode)


@pytest.mark.parametrize("code", FailureCode)
def test_codes_are_for_programs(code: FailureCode) -> None:
    assert re.fullmatch("[a-z]+(_[a-z]+)*", code)


def test_no_code_was_ever_taken_away() -> None:
    assert {
        "not_audio",
        "audio_truncated",
        "audio_empty",
        "audio_too_long",
        "audio_missing",
        "checksum_mismatch",
        "analysis_refused",
        "analysis_failed",
        "analysis_timed_out",
        "result_too_large",
        "result_invalid",
    } <= set(FailureCode)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "ko"),
        ("", "ko"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en", "en"),
        ("EN-gb", "en"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("ko;q=0.5,en", "en"),
        ("en;q=0.5,ko", "ko"),
        ("en ; q=0.2 , ko ; q=0.1", "en"),
        ("de,fr;q=0.9", "ko"),
        ("de,en;q=0.1", "en"),
        ("*", "ko"),
        ("en;q=0", "ko"),
        ("ko;q=0,en;q=0.001", "en"),
        ("en;q=abc", "ko"),
        ("en;q=", "ko"),
        ("en;q=nan", "ko"),
        ("en;q=0.5,ko;q=0.5", "en"),
        ("ko;q=0.5,en;q=0.5", "ko"),
        ("english", "ko"),
        (",,;;,en", "en"),
        ("en;Q=0.1,ko;q=0.5", "ko"),
    ],
)
def test_the_language_is_the_one_that_the_caller_prefers(header: str | None, language: Language) -> None:
    assert preferred_language(header) == language


@given(st.text())
def test_any_header_chooses_a_language(header: str) -> None:
    assert preferred_language(header) in LANGUAGES


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_every_problem_speaks_both_languages(kind: ProblemKind) -> None:
    korean, english = kind.body("ko"), kind.body("en")
    assert HANGUL.search(korean.title)
    assert HANGUL.search(korean.detail)
    assert not HANGUL.search(english.title + english.detail)
    assert english.detail.endswith(".")
    assert korean.detail.endswith(".")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_a_problem_body_is_that_of_rfc_9457_with_a_code(kind: ProblemKind) -> None:
    body = kind.body("en").model_dump()
    assert set(body) == {"type", "title", "status", "detail", "code"}
    assert body["type"] == f"/problems/{kind.code}"
    assert body["status"] in range(400, 600)


def test_problem_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes) >= 17


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("file_missing", 422),
        ("too_many_files", 422),
        ("file_empty", 422),
        ("form_malformed", 400),
        ("upload_too_large", 413),
        ("job_not_found", 404),
        ("signature_invalid", 401),
        ("webhook_not_json", 400),
        ("result_too_large", 413),
        ("unavailable", 503),
        ("internal_error", 500),
    ],
)
def test_the_status_of_a_problem_is_promised(code: str, status: int) -> None:
    assert {kind.code: kind.status for kind in KINDS}[code] == status
