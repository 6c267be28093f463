"""Names hide nothing: no character in them turns text around, or cannot be seen."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.names import is_plain, plain

PLAIN = [
    "최민식",
    "신에게는 아직 열두 척의 배가 있사옵니다",
    unicodedata.normalize("NFD", "녹음"),
    "Renée Müller-O'Neil (1/2) <b>",
    "حسن",
    "🎤 my 🔥 take 👩‍👩‍👧",
    "👩🏽‍🚀 ❤️‍🔥 🏳️‍🌈 🐈‍⬛",
    "葛\U000e0100城",
    "a\u00a0b",
    "",
]
HIDDEN = {
    "right-to-left override": "gnp.\u202eexe",
    "left-to-right isolate": "\u2066a\u2069",
    "Arabic letter mark": "a\u061c",
    "zero-width space": "ad\u200bmin",
    "zero-width non-joiner": "ad\u200cmin",
    "a joiner between letters": "ad\u200dmin",
    "a joiner after an emoji": "👩\u200d",
    "two joiners": "👩\u200d\u200d🚀",
    "word joiner": "a\u2060b",
    "byte order mark": "\ufeffa",
    "soft hyphen": "ad\u00admin",
    "tags": "🏴\U000e0067\U000e007f",
    "Hangul filler": "\u3164",
    "half-width Hangul filler": "a\uffa0",
    "Braille blank": "\u2800",
    "grapheme joiner": "a\u034fb",
    "NUL": "a\0",
    "C1 control": "a\u0085b",
    "line separator": "a\u2028b",
    "lone surrogate": "a\ud800",
}


@pytest.mark.parametrize("name", PLAIN)
def test_what_can_be_seen_may_be_in_a_name(name: str) -> None:
    assert is_plain(name)
    assert plain(name) == name


@pytest.mark.parametrize("name", HIDDEN.values(), ids=HIDDEN)
def test_what_hides_something_may_not(name: str) -> None:
    assert not is_plain(name)
    assert is_plain(plain(name))
    assert len(plain(name)) < len(name)


@given(st.text() | st.text(st.sampled_from("a가👩🚀\u200d\ufe0f🏽\u202e\u3164")))
def test_what_is_left_of_any_name_is_plain_or_was_not_touched(name: str) -> None:
    left = plain(name)
    assert (left == name) == is_plain(name)
    assert is_plain(left)
