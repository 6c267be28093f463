"""What every error's answer has to look like (RFC 9457), in either language."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

LANGUAGES = {"ko": "ko-KR,ko;q=0.9,en;q=0.5", "en": "en-US,en;q=0.9,ko;q=0.5"}
"""An Accept-Language header of a browser in each language."""
HANGUL = re.compile(r"[가-힣]")
PROGRAMS_TALK = re.compile(
    r"Traceback|Exception|[A-Z]\w*Error\b|[Ee]rror occurred|[Ee]rrno|pymongo|botocore|aiormq|NoneType|site-packages"
)
"""The language of programs, which no user may ever have to read."""


class Answer(Protocol):
    """An answer of httpx, or one read by hand."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; to be looked up by names in lower case."""

    def json(self) -> Any:
        """The body as JSON."""


def assert_problem(answer: Answer, status: int, code: str, language: str = "ko") -> None:
    """Check a refusal: the status, the stable code, and words for people in the language that was asked for."""
    told = getattr(answer, "status_code", None) or getattr(answer, "status", None)
    assert answer.headers["content-type"] == "application/problem+json", answer.headers
    problem = answer.json()
    assert (told, problem["code"]) == (status, code), problem
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["status"] == status
    for sentence in (problem["title"], problem["detail"]):
        assert_sentence(sentence, language)


def assert_sentence(sentence: str, language: str) -> None:
    """Check words that a user reads."""
    assert sentence.strip()
    assert bool(HANGUL.search(sentence)) == (language == "ko"), sentence
    assert not PROGRAMS_TALK.search(sentence), sentence
