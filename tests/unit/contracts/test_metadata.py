"""What a user may note with a recording, and how its job is found by it."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.metadata import MAX_BYTES, MAX_DEPTH, MAX_TERMS, parsed, terms, terms_asked

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


TAKEN: dict[str, bytes] = {
    "nothing in it": b"{}",
    "just small enough": b'{"a":"' + b"x" * (MAX_BYTES - 8) + b'"}',
    "just deep enough": nested(MAX_DEPTH),
    "keys of databases": b'{"a.b":1,"$where":2,"":3,"\\u0000":4,"_id":5,"__proto__":6}',
    "an integer of 80 bits": b'{"a":604462909807314587353088}',
    "a very long integer": b'{"a":' + b"9" * 4000 + b"}",
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "a surrogate pair": b'{"a":"\\ud83d\\ude00"}',
    "a key twice": b'{"a":1,"a":2}',
    "text in any language": '{"사용자":"홍길동 🎤"}'.encode(),
}
REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"undefined",
    "an object of JavaScript": b"[object Object]",
    "single quotes": b"{'a':1}",
    "a list": b"[1]",
    "a number": b"7",
    "null": b"null",
    "a text with JSON in it": b'"{}"',
    "two objects": b"{}{}",
    "too large": b'{"a":"' + b"x" * (MAX_BYTES - 7) + b'"}',
    "too deep": nested(MAX_DEPTH + 1),
    "much too deep": nested(600),
    "lists that are too deep": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    "NaN": b'{"a":NaN}',
    "an infinite number": b'{"a":-Infinity}',
    "a number that is too large": b'{"a":[{"b":1e999}]}',
    "a lone surrogate": b'{"a":"\\ud83d"}',
    "a lone surrogate as a key": b'{"\\udc00":1}',
    "no UTF-8": b'{"a":"\xff"}',
    "UTF-16": '{"a":1}'.encode("utf-16"),
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN)
def test_an_object_is_kept_as_it_is(text: bytes) -> None:
    metadata = parsed(text)
    assert metadata == json.loads(text)
    assert parsed(events.to_json(metadata).encode()) == metadata
    terms(metadata)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one does not matter: the caller is told the rule
        parsed(text)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_anything_else_is_a_value_error(text: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parsed(text), dict)


FOUND: list[tuple[str, Any, list[str]]] = [
    ("user", 7, ["7", "7.0", "70e-1"]),
    ("user", "7", ["7", "7.0"]),
    ("user", 7.0, ["7", "7.0"]),
    ("user", "07", ["07"]),
    ("user", 1.5, ["1.5", "1.50", "15e-1"]),
    ("user", 1000, ["1e3", "1000"]),
    ("user", -1, ["-1"]),
    ("user", 2**70, [str(2**70)]),
    ("user", "", [""]),
    ("user", "a=b", ["a=b"]),
    ("user", True, ["true"]),
    ("user", None, ["null"]),
    ("user", ["a", 7], ["a", "7"]),
    ("a.b", "c", ["c"]),
    ("$where", "1", ["1"]),
    ('a"=b', "c", ["c"]),
    ("", "x", ["x"]),
]


@pytest.mark.parametrize(("key", "value", "asked"), FOUND)
def test_a_value_is_found_as_it_may_be_written(key: str, value: Any, asked: list[str]) -> None:
    for text in asked:
        assert set(terms({key: value, "other": 1})) & set(terms_asked(key, text)), text


@pytest.mark.parametrize(
    ("key", "value", "asked"),
    [
        ("user", 7, "8"),
        ("user", 7, "07"),
        ("user", "07", "7"),
        ("user", 1, "true"),
        ("user", "", "null"),
        ("user", {"7": 7}, "7"),
        ("user", [[7]], "7"),
        ("User", 7, "7"),
        ("user", "a", "A"),
    ],
)
def test_another_value_is_not_found(key: str, value: Any, asked: str) -> None:
    assert not set(terms({key: value})) & set(terms_asked("user", asked))


@given(st.text(), st.text())
def test_any_question_can_be_asked(key: str, text: str) -> None:
    assert terms({key: text})[0] in terms_asked(key, text)


@pytest.mark.parametrize("text", ["9" * 60_000, "1e999999999", "[" * 60_000, "NaN", "-Infinity", "1e308"])
def test_a_question_that_is_too_much_finds_nothing(text: str) -> None:
    assert terms_asked("user", text)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_whatever_is_kept_is_found_by_every_value_at_its_top(metadata: dict[str, Any]) -> None:
    found = set(terms(metadata))
    for key, value in metadata.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert found & set(terms_asked(key, json.dumps(value)))


@pytest.mark.parametrize(
    "metadata",
    [
        {"k" * 2000: list(range(500))},
        {"\u0001" * 600: list(range(500))},
        {str(number): number for number in range(400)},
        {"user": list(range(1000))},
    ],
)
def test_terms_are_few_and_short_whatever_the_metadata(metadata: dict[str, Any]) -> None:
    found = terms(metadata)
    assert len(found) == MAX_TERMS
    assert sum(map(len, found)) <= MAX_BYTES


def test_the_first_values_are_those_that_find_a_job() -> None:
    found = terms({"user": [*range(MAX_TERMS + 1), *range(9)], "last": 1})
    assert set(terms_asked("user", str(MAX_TERMS - 1))) <= set(found)
    assert not set(terms_asked("user", str(MAX_TERMS))) & set(found)
    assert not set(terms_asked("last", "1")) & set(found)
