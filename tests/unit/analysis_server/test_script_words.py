"""What of a script is one word, and how it is read aloud."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_server import alignment
from analysis_server.pronunciation import pronunciations
from analysis_server.script_words import split


def lookup(word: str) -> str | None:
    """The decoder's dictionary."""
    phones: str | None = alignment._decoder(alignment._WIDE).lookup_word(word)
    return phones


@pytest.mark.parametrize(
    ("text", "word", "said"),
    [
        ("in 1984", "1984", "nineteen eighty four"),
        ("in 2005", "2005", "twenty oh five"),
        ("1984 people", "1984", "one thousand nine hundred and eighty four"),
        ("3.5", "3.5", "three point five"),
        ("1st", "1st", "first"),
        ("the 22nd", "22nd", "twenty second"),
        ("the 1990s", "1990s", "nineteen nineties"),
        ("the '90s", "90s", "nineties"),
        ("at 10:30", "10:30", "ten thirty"),
        ("at 10:05", "10:05", "ten oh five"),
        ("at 10am", "10am", "ten a. m."),
        ("at 5 p.m.", "p.m.", "p. m."),
        ("50% off", "50%", "fifty percent"),
        ("for $1", "$1", "one dollar"),
        ("for $20", "$20", "twenty dollars"),
        ("for £3.20", "£3.20", "three pounds twenty"),
        ("for $0.50", "$0.50", "fifty cents"),
        ("$5 million", "million", "million dollars"),
        ("No. 5", "No", "number"),
        ("#1", "#1", "number one"),
        ("an A4 page", "A4", "a. four"),
        ("20,000 years", "20,000", "twenty thousand"),
        ("call 911", "911", "nine one one"),
        ("agent 007", "007", "double oh seven"),
        ("5-10 days", "10", "to ten"),
        ("July 4", "4", "the fourth"),
        ("1½ cups", "1½", "one and a half"),
        ("½ a cup", "½", "a half"),
        ("20°C", "20°C", "twenty degrees celsius"),
        ("5 km", "km", "kilometers"),
        ("5km", "5km", "five kilometers"),
        ("-5", "-5", "minus five"),
        ("you & me", "&", "and"),
        ("Prof. X", "Prof", "professor"),
        ("U.S. Army", "U.S.", "u. s."),
        ("12345678901234567890", "12345678901234567890", "one two three four five six seven eight nine zero " * 2),
    ],
)
def test_a_number_is_one_word_and_read_as_people_say_it(text: str, word: str, said: str) -> None:
    readings = {one.word: [" ".join(reading) for reading in one.readings] for one in split(text)}
    assert said.strip() in readings[word]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don\u2019t know that well-known actor!", ["I", "don't", "know", "that", "well", "known", "actor"]),
        ("She said 'hello' \u2014 twice\u2026 \U0001f600", ["She", "said", "hello", "twice"]),
        ("cafe\u0301 na\u00efve", ["caf\u00e9", "na\u00efve"]),
        ("co\u00adop\u200b", ["coop"]),
        ("1990-1995", ["1990", "1995"]),
        ("R&D, AT&T", ["R", "&", "D", "AT", "&", "T"]),
    ],
)
def test_words_are_as_the_script_writes_them_without_what_is_around_them(text: str, words: list[str]) -> None:
    assert [one.word for one in split(text)] == words


@given(st.lists(st.text("a1. $%'-&°½:/,소\n", max_size=12), max_size=4))
def test_scripts_have_the_same_words_together_as_each_by_itself(scripts: list[str]) -> None:
    together = [one.word for one in split("\n".join(scripts))]
    assert together == [one.word for script in scripts for one in split(script)]


@given(st.text(max_size=60) | st.text("0123456789.,$%:/-½stkm ", max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert all(one.word and one.readings and all(one.readings) for one in split(text))


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("fox", "F AA K S"),
        ("Sori", "S AO R IY"),
        ("blockchain", "B L AA K CH EY N"),
        ("Zorblax's", "Z AO R B AH L K S IH Z"),
        ("caf\u00e9", "K AH F EY"),
        ("nooooo", "N OW"),
        ("KFC", "K EY EH F S IY"),
        ("NASA", "N AE S AH"),
        ("kittens'", "K IH T AH N Z"),
    ],
)
def test_a_word_is_pronounced_by_the_dictionary_or_by_its_parts_or_by_its_letters(word: str, phones: str) -> None:
    assert phones in pronunciations(word, lookup)


@pytest.mark.parametrize("word", ["소리", "Привет", "小", "1984년", "a" + "bcd" * 20])
def test_what_is_not_written_in_latin_letters_or_is_no_word_is_not_pronounced(word: str) -> None:
    assert pronunciations(word, lookup) == []
