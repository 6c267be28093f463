"""What the gateway decides about the catalogue: ids, preconditions, filters, and what is said of a wrong request."""

import re
from random import Random
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from contracts.catalogue import ActorBody, ScriptBody, TokenBody
from gateway.catalogue.rows import Order, TokenFilter, entity_tag, expected_revisions, row_id
from gateway.web.wrong_fields import MAX_FIELDS, wrong_fields
from tests.support.answers import assert_sentence

REVISIONS = st.integers(1, 10**15)
OTHER_TAGS = st.sampled_from(['W/"7"', '"x"', '"07"', '""', '"a, b"', ""])
NO_TAGS = st.sampled_from(["nonsense", '"7', "*", '"6"-gzip', '"6" "7"', 'w/"7"', "7"])


@given(st.integers(1, 2**31 - 1))
def test_an_id_has_one_spelling(number: int) -> None:
    assert row_id(str(number)) == number
    for spelling in (f"0{number}", f"+{number}", f"-{number}", f" {number}", f"{number}.0", f"{number}\n"):
        assert row_id(spelling) is None


@given(st.text())
def test_what_is_no_id_is_no_rows(text: str) -> None:
    assert row_id(text) is None or re.fullmatch(r"[1-9]\d*", text, re.ASCII)


@pytest.mark.parametrize("text", ["0", "2147483648", "9" * 400, "١", "１", "1_0", "1e3", "test-token"])
def test_these_are_no_ids(text: str) -> None:
    assert row_id(text) is None


@given(st.lists(REVISIONS, min_size=1), st.lists(OTHER_TAGS))
def test_a_list_of_tags_allows_every_revision_in_it_and_no_other(revisions: list[int], others: list[str]) -> None:
    tags = [*others, *map(entity_tag, revisions)]
    assert expected_revisions([", ".join(tags)]) == frozenset(revisions)
    assert expected_revisions(tags) == frozenset(revisions), "several fields are one list"


@given(st.lists(REVISIONS, min_size=1), NO_TAGS, st.randoms())
def test_what_is_no_list_of_tags_allows_none_whatever_is_in_it(
    revisions: list[int], wrong: str, chance: Random
) -> None:
    tags = [*map(entity_tag, revisions), wrong]
    chance.shuffle(tags)
    assert expected_revisions([", ".join(tags)]) == frozenset()


@pytest.mark.parametrize("fields", [[], ["*"], [" * "]])
def test_no_precondition_allows_every_revision(fields: list[str]) -> None:
    assert expected_revisions(fields) is None


@pytest.mark.parametrize("field", ['W/"7"', '"seven"', "7", "", '"*"', '"07"', '"+7"', f'"{"9" * 30}"', 'w/"7'])
def test_what_is_no_tag_of_ours_allows_none(field: str) -> None:
    assert expected_revisions([field]) == frozenset()


@pytest.mark.parametrize("blank", [None, "", " ", "\u3000"])
def test_a_filter_that_is_blank_asks_for_nothing(blank: str | None) -> None:
    assert TokenFilter(blank, blank, blank) == TokenFilter()
    assert TokenFilter(category=" 사극 ", order=Order.POPULAR).category == "사극"


class _Limits(BaseModel):
    number: int = Field(ge=1, le=3)
    order: Order


WRONG: list[tuple[type[BaseModel], Any, dict[str, str]]] = [
    (
        TokenBody,
        {"token_name": "", "actor_name": 7, "start_time": "x", "end_time": -1, "views": 1, "id": 1, "scripts": []},
        {
            "token_name": "at least 1 char",
            "actor_name": "text",
            "start_time": "number",
            "end_time": "at least 0",
            "views": "no such field",
            "id": "read-only",
            "scripts": "read-only",
        },
    ),
    (
        TokenBody,
        {"token_name": "a\0", "actor_name": "a" * 201, "start_time": 2, "end_time": 1, "category": None},
        {"token_name": "form", "actor_name": "at most 200", "end_time": "greater than start_time"},
    ),
    (
        TokenBody,
        {"token_name": "\ud800", "start_time": float("nan"), "end_time": 1e9},
        {"token_name": "text", "actor_name": "needed", "start_time": "finite", "end_time": "at most 360000"},
    ),
    (
        ScriptBody,
        {"token_id": 1.5, "start_time": 0, "end_time": [], "script": "a"},
        {"token_id": "integer", "end_time": "number"},
    ),
    (ScriptBody, {"token_id": "x", "start_time": 0, "end_time": 1, "script": "a"}, {"token_id": "integer"}),
    (ActorBody, {"name": "a", "aliases": ["b", 3, ""]}, {"aliases.1": "text", "aliases.2": "at least 1"}),
    (ActorBody, {"name": "a", "aliases": "b"}, {"aliases": "array"}),
    (ActorBody, {"name": "a", "aliases": ["b"] * 51}, {"aliases": "at most 50"}),
    (_Limits, {"number": 4, "order": "best"}, {"number": "at most 3", "order": "'popular'"}),
]


@pytest.mark.parametrize(("model", "body", "wrong"), WRONG)
def test_every_wrong_value_is_named_with_words_of_ours(
    model: type[BaseModel], body: dict[str, Any], wrong: dict[str, str]
) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(model).validate_python(body)
    errors = [{**error, "loc": ("body", *error["loc"])} for error in refused.value.errors()]
    told = {problem.field: problem.message for problem in wrong_fields(errors, "en")}
    assert told.keys() == wrong.keys()
    for field, words in wrong.items():
        assert words in told[field]
        assert "cannot be used" not in told[field], "it has words of its own"
    for problem in wrong_fields(errors, "ko"):
        assert_sentence(problem.message, "ko")


def test_a_body_that_is_no_json_object_is_called_body() -> None:
    for error in ({"type": "json_invalid", "loc": ("body", 17)}, {"type": "model_attributes_type", "loc": ("body",)}):
        (problem,) = wrong_fields(RequestValidationError([error]).errors(), "en")
        assert problem.field == "body"
        assert "JSON" in problem.message


def test_what_is_wrong_in_a_way_that_has_no_words_is_still_named() -> None:
    errors = [{"type": "new_in_pydantic", "loc": ("query", "limit"), "ctx": {"error": ValueError("secret")}}]
    (problem,) = wrong_fields(errors, "en")
    assert (problem.field, problem.message) == ("limit", "This value cannot be used.")


def test_an_answer_names_no_more_than_so_many_fields_and_none_at_length() -> None:
    errors = [{"type": "extra_forbidden", "loc": ("body", "x" * 10_000)}] * (MAX_FIELDS + 1)
    told = wrong_fields(errors, "ko")
    assert len(told) == MAX_FIELDS
    assert max(len(problem.field) for problem in told) <= 100
