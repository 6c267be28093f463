"""The catalogue's bodies and what rows are found by: any part of a name finds it, and nothing else does."""

import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts import catalogue
from contracts.catalogue import Actor, ActorBody, ScriptBody, Token, TokenBody, document, folded, grams, sought

KOREAN = st.text(st.characters(min_codepoint=ord("가"), max_codepoint=ord("힣")), max_size=12)
TEXTS = st.text(max_size=20) | KOREAN | st.text("abAB 명량김 -ßİ", max_size=12)
TOKEN = {"token_name": "명량", "actor_name": "최민식", "start_time": 1.5, "end_time": 2}
SCRIPT = {"token_id": 1, "start_time": 0, "end_time": 0.001, "script": "a"}


@given(TEXTS, st.data())
def test_any_part_of_a_name_is_found_by_the_grams_of_both(name: str, data: st.DataObject) -> None:
    whole = folded(name)
    assume(whole)
    begin = data.draw(st.integers(0, len(whole) - 1))
    part = whole[begin : data.draw(st.integers(begin + 1, len(whole)))]
    assert set(sought(part)) <= set(grams(name))


@pytest.mark.parametrize(
    ("sought_for", "name"),
    [
        ("민식", "최민식"),
        ("식", "최민식"),
        ("SIK", "Choi Min-sik"),
        ("min-SIK", "Choi MIN-Sik"),
        ("i  m", "Choi Min-sik"),
        (unicodedata.normalize("NFD", "민식"), "최민식"),
        ("최민식", unicodedata.normalize("NFD", "최민식")),
        ("strasse", "Hauptstraße"),
        ("ABC", "ａｂｃ"),
    ],
)
def test_case_spaces_and_the_form_of_letters_make_no_difference(sought_for: str, name: str) -> None:
    assert set(sought(sought_for)) <= set(grams(name))
    assert folded(sought_for) in folded(name)


@given(TEXTS)
def test_a_name_is_folded_once_and_for_all(name: str) -> None:
    assert folded(folded(name)) == folded(name)
    assert folded(f"  {name}\t") == folded(name)


def test_a_token_is_found_by_each_of_its_actors_and_an_actor_by_each_name() -> None:
    kept = document(Token.model_validate({"_id": 3, **TOKEN, "actor_name": " 최민식,Choi  MIN-sik,, 최민식"}))
    assert (kept["_id"], kept["view_count"]) == (3, 0)
    assert kept["actors"] == ["최민식", "choi min-sik", "최민식,choi min-sik,, 최민식"]
    assert set(grams("명량")) | set(grams("최민식")) <= set(kept["grams"])
    assert "id" not in kept
    actor = document(Actor(id=4, name="최민식", aliases=["Choi Min-sik", "최민식"]))
    assert (actor["name_key"], actor["names"]) == ("최민식", ["최민식", "choi min-sik"])
    assert set(sought("min-s")) <= set(actor["grams"])


def test_an_actors_name_may_have_a_comma_in_it() -> None:
    kept = document(Token.model_validate({"id": 3, **TOKEN, "actor_name": "Downey,  Robert"}))
    actor = document(Actor(id=4, name="Downey, Robert"))
    assert actor["name_key"] in kept["actors"]


def test_a_row_is_read_back_from_its_document() -> None:
    token = Token.model_validate({"id": 3, **TOKEN, "category": "사극", "view_count": 7})
    kept = document(token)
    assert Token.model_validate({name: kept[name] for name in ("_id", *Token.model_fields) if name != "id"}) == token


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"start_time": 2}, "end_time"),
        ({"start_time": 3}, "end_time"),
        ({"start_time": -0.1}, "start_time"),
        ({"end_time": float("inf")}, "end_time"),
        ({"end_time": float("nan")}, "end_time"),
        ({"token_name": " "}, "token_name"),
        ({"token_name": "a" * 201}, "token_name"),
        ({"token_name": "a\0"}, "token_name"),
        ({"actor_name": None}, "actor_name"),
        ({"category": ""}, "category"),
        ({"id": 1}, "id"),
        ({"_id": 1}, "_id"),
        ({"view_count": 1}, "view_count"),
        ({"s3_pitch_url": "http://elsewhere/pitch.json"}, "s3_pitch_url"),
        ({"s3_pitch_url": "/etc/passwd"}, "s3_pitch_url"),
        ({"s3_textgrid_url": "file:///etc/passwd"}, "s3_textgrid_url"),
        ({"youtube_url": "javascript:alert(1)"}, "youtube_url"),
        ({"start_time": False}, "start_time"),
        ({"start_time": "1"}, "start_time"),
        ({"end_time": True}, "end_time"),
        ({"token_name": 7}, "token_name"),
        ({"token_name": "ad\u200bmin"}, "token_name"),
        ({"actor_name": "\u202eJack"}, "actor_name"),
        ({"category": "\u3164"}, "category"),
        ({"s3_pitch_url": "https://host/<script>"}, "s3_pitch_url"),
        ({"s3_textgrid_url": "catalogue/\u202e.TextGrid"}, "s3_textgrid_url"),
        *(
            ({name: f"https://youtu.be/{wrong}"}, name)
            for name in ("youtube_url", "thumbnail_url")
            for wrong in ("a\0", "a b", "a\n", "<b>", 'a"onload=', "a\\b", "a`", "\u202ea", "a\u200b", "a\x85", "a\xa0")
        ),
        ({"youtube_url": "https://<host>"}, "youtube_url"),
        ({"youtube_url": "https://"}, "youtube_url"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused_by_field(given: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TokenBody.model_validate({**TOKEN, **given})
    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


@pytest.mark.parametrize("address", ["key.TextGrid", "a/b c.json", "s3://bucket/a/한글.json", "https://host/key?x=1"])
def test_an_s3_address_may_be_a_key_or_an_address(address: str) -> None:
    body = TokenBody.model_validate({**TOKEN, "s3_textgrid_url": address, "reference_audio_url": address})
    assert body.s3_textgrid_url == body.reference_audio_url == address


@pytest.mark.parametrize(
    "address",
    [
        "https://www.youtube.com/watch?v=c0ffee&t=61s#a",
        "http://img.example:8080/한글 1.jpg".replace(" ", "%20"),
        "https://img.example?id=1",
        "https://img.example/it's~(1).jpg",
    ],
)
def test_a_link_may_be_any_address_of_the_web(address: str) -> None:
    body = TokenBody.model_validate({**TOKEN, "youtube_url": address, "thumbnail_url": address})
    assert body.youtube_url == body.thumbnail_url == address


@pytest.mark.parametrize(
    "given",
    [
        {"end_time": 0},
        {"token_id": 0},
        {"token_id": "1"},
        {"token_id": True},
        {"token_id": 1.0},
        {"token_id": 2**31},
        {"script": ""},
        {"id": 1},
    ],
)
def test_a_script_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    ScriptBody.model_validate(SCRIPT)
    with pytest.raises(ValidationError):
        ScriptBody.model_validate({**SCRIPT, **given})


def test_an_actor_has_a_name_and_so_many_aliases() -> None:
    assert ActorBody(name=" 최민식 ").name == "최민식"
    for aliases in ([""], ["ad\u200bmin"], ["a"] * (catalogue.MAX_ALIASES + 1)):
        with pytest.raises(ValidationError):
            ActorBody(name="a", aliases=aliases)
    with pytest.raises(ValidationError):
        ActorBody.model_validate({"name": "a", "aliases": [7]})


def test_indexes_of_a_collection_have_names_of_their_own() -> None:
    names = [(index.collection, index.name) for index in catalogue.INDEXES]
    assert len(set(names)) == len(names)
