"""Whatever is written in a script: it is read without an error, in little time, and each word has a reading."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis_server import spoken_numbers
from analysis_server.pronunciation import pronunciations
from analysis_server.script_words import split, spoken_forms

_ODD = [
    *"0123456789.,:/%°#$£€¢¥₩-−'’ʼ`\"() \n\u200b\u00ad",
    *"٣३９²½⅟¾↉ⅣⅫ①⁄№",
    *("e\u0301", "\u0301", "ŉ", "ß", "ﬁ", "K", "ı", "가", "あ", "\ud83d"),
    *("a", "S", "Zorblax", "it", "st", "th", "s", "k", "km", "million", "No", "no.", "Prof.", "May", "U.S."),
    *("'s", "'ll", "n't", "'ve", "°C", "12345678901234567", "000", "1,000", "1984"),
    *("pm", "a.m.", "/h", "㎡", "원", "Jan", "4/5/24", "2024-1-5", "Henry", "VI", "War", "e.g."),
]
_TEXTS = st.lists(st.sampled_from(_ODD), max_size=40).map("".join) | st.text(max_size=40)
_PHONES = {
    "zorblax": "Z AO R B L AE K S",
    "it": "IH T",
    **{f"{letter}.": "EH K S" for letter in "abcdefghijklmnopqrstuvwxyz"},
}


def check(text: str) -> None:
    """Read every word of a text, and say it, by a dictionary of few words."""
    words = split(text)
    for one in words:
        assert one.readings, one
        assert all(reading and all(reading) for reading in one.readings), one
    for word in {word for one in words for reading in one.readings for word in reading}:
        assert all(pronunciations(word, _PHONES.get)), word
    spoken_forms(text)


@settings(max_examples=1000, deadline=timedelta(seconds=2))
@given(_TEXTS)
@example("3⅟")
@example("⅟")
def test_every_word_of_any_text_has_a_reading(text: str) -> None:
    check(text)


@settings(max_examples=200, deadline=timedelta(seconds=2))
@given(st.sampled_from(_ODD), st.sampled_from(_ODD), st.integers(1, 6000))
@example("x", "'s", 1200)
@example("$", "9", 5000)
@example("", "9", 5000)
@example("", "1,", 6000)
@example("", "1.", 6000)
@example("a", "\u0301", 6000)
def test_what_is_repeated_without_end_is_read_in_little_time(first: str, repeated: str, times: int) -> None:
    check(first + repeated * times)


_DIGITS = st.text("0123456789", min_size=1, max_size=5000)
_GROUPED = st.lists(_DIGITS, min_size=1, max_size=3).map(",".join)


@pytest.mark.parametrize("of_long", [spoken_numbers.number, spoken_numbers.ordinal, spoken_numbers.decade])
@given(_GROUPED)
@example("9" * 5000)
def test_a_number_of_any_length_is_read(of_long: Callable[[str], list[tuple[str, ...]]], digits: str) -> None:
    assert all(of_long(digits if of_long is not spoken_numbers.decade else digits.replace(",", "")))


@given(st.sampled_from("$£€¢¥₩"), _GROUPED, st.none() | _DIGITS)
@example("$", "9" * 5000, None)
@example("$", "9" * 5000, "50")
def test_an_amount_of_any_length_is_read(symbol: str, whole: str, part: str | None) -> None:
    assert all(spoken_numbers.money(symbol, whole if part is None else f"{whole}.{part}"))


@pytest.mark.parametrize(
    ("symbol", "amount", "said"),
    [("$", "01", "one dollar"), ("$", "00.50", "fifty cents"), ("£", "1,000", "one thousand pounds")],
)
def test_zeros_before_an_amount_change_nothing(symbol: str, amount: str, said: str) -> None:
    assert said in {" ".join(reading) for reading in spoken_numbers.money(symbol, amount)}


def test_a_name_has_one_ending_beside_those_that_the_dictionary_knows() -> None:
    assert pronunciations("Zorblax's", _PHONES.get) == ["Z AO R B L AE K S IH Z"]
    assert pronunciations("Zorblax'll", _PHONES.get) == ["Z AO R B L AE K S AH L"]
