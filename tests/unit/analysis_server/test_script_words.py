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
        ("5m²", "5m²", "five square meters"),
        ("10 m²", "m²", "square meters"),
        ("1 km", "km", "kilometer"),
        ("1.5km", "1.5km", "one point five kilometers"),
        ("10,000km", "10,000km", "ten thousand kilometers"),
        ("1.2k views", "1.2k", "one point two thousand"),
        ("1.5x", "1.5x", "one point five times"),
        ("60 km/h", "km/h", "kilometers per hour"),
        ("60km/h", "60km/h", "sixty kilometers per hour"),
        ("1,000,000원", "1,000,000원", "one million won"),
        ("1.5B", "1.5B", "one point five b."),
        ("1.5abc", "1.5abc", "one point five abc"),
        ("20$", "20$", "twenty dollars"),
        ("20¥", "20¥", "twenty yen"),
        ("$.99", "$.99", "ninety nine cents"),
        (".5", ".5", "point five"),
        ("20 $5 bills", "$5", "five dollars"),
        ("-5", "-5", "minus five"),
        ("-5°C", "-5°C", "minus five degrees celsius"),
        ("-3.5%", "-3.5%", "minus three point five percent"),
        ("-$5", "-$5", "minus five dollars"),
        ("-10:30", "-10:30", "minus ten thirty"),
        ("5%-10%", "10%", "to ten percent"),
        ("9:00-10:30", "10:30", "to ten thirty"),
        ("3:30pm-4:30pm", "4:30pm", "to four thirty p. m."),
        ("9:30 a.m.-10:30 a.m.", "10:30", "ten thirty"),
        ("-5\u2013-3", "-3", "to minus three"),
        ("1°C", "1°C", "one degree celsius"),
        ("at 7:00pm", "7:00pm", "seven p. m."),
        ("at 3:30PM", "3:30PM", "three thirty p. m."),
        ("at 10.30pm", "10.30pm", "ten thirty p. m."),
        ("at 1:30p.m.", "1:30p.m.", "one thirty p. m."),
        ("at 10.30 am", "10.30", "ten thirty"),
        ("at 3:30 pm", "pm", "p. m."),
        ("01/05/2024", "01/05/2024", "january fifth twenty twenty four"),
        ("01/05/2024", "01/05/2024", "the first of may twenty twenty four"),
        ("5/1/24", "5/1/24", "may first twenty twenty four"),
        ("12/25/2023", "12/25/2023", "december twenty fifth twenty twenty three"),
        ("25/12/99", "25/12/99", "the twenty fifth of december nineteen ninety nine"),
        ("2024-01-05", "2024-01-05", "january fifth twenty twenty four"),
        ("25/25/2024", "25/25/2024", "twenty five twenty five twenty twenty four"),
        ("5 January", "5", "the fifth of"),
        ("4 July", "4", "fourth"),
        ("5 Jan", "Jan", "january"),
        ("Sept. 5", "Sept", "september"),
        ("World War II", "II", "two"),
        ("Henry VIII", "VIII", "the eighth"),
        ("Louis XIV", "XIV", "the fourteenth"),
        ("Chapter I", "I", "one"),
        ("E.g. this", "E.g.", "for example"),
        ("i.e. that", "i.e.", "that is"),
        ("２０％", "20%", "twenty percent"),
        ("５㎞", "5km", "five kilometers"),
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
        ("1,2 or 3.", ["1", "2", "or", "3"]),
        ("10,000명", ["10,000명"]),
        ("R&D, AT&T", ["R", "&", "D", "AT", "&", "T"]),
    ],
)
def test_words_are_as_the_script_writes_them_without_what_is_around_them(text: str, words: list[str]) -> None:
    assert [one.word for one in split(text)] == words


@pytest.mark.parametrize("text", ["I met Malcolm X", "an IV", "Did I", "a May day", "part I like", "5 may"])
def test_what_only_looks_like_a_number_or_a_date_is_read_as_a_word(text: str) -> None:
    assert all(one.readings == ((one.word,),) for one in split(text) if one.word.isalpha())


@given(st.lists(st.text("a1. $%'-&°½:/,소\n", max_size=12), max_size=4))
def test_scripts_have_the_same_words_together_as_each_by_itself(scripts: list[str]) -> None:
    together = [one.word for one in split("\n".join(scripts))]
    assert together == [one.word for script in scripts for one in split(script)]


@given(st.text(max_size=60) | st.text("0123456789.,$%:/-½stkmp ㎞²IVX", max_size=60))
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
