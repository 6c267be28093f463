"""Which words of the scripts were marked, and where."""

import pytest

from analysis_server.matching import is_too_repetitive, placed
from analysis_server.script_words import split
from analysis_server.voice import Spoken


def marked(*labels: str) -> list[Spoken]:
    return [Spoken(label, at, at + 1) for at, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("labels", "times"),
    [
        (["in", "1984", "again"], (1, 2)),
        (["in", "nineteen", "eighty", "four", "again"], (1, 4)),
        (["in", "one", "thousand", "nine", "hundred", "and", "eighty", "four", "again"], (1, 8)),
        (["In", "nineteen eighty-four", "again."], (1, 2)),
    ],
)
def test_a_number_matches_in_digits_and_in_words(labels: list[str], times: tuple[int, int]) -> None:
    found = placed(marked(*labels), split("in 1984 again"))
    assert sorted(found) == [0, 1, 2]
    assert found[1] == Spoken("1984", *times)


def test_a_number_of_which_words_are_missing_and_a_label_of_two_words_are_not_matched() -> None:
    assert sorted(placed(marked("in", "nineteen", "four"), split("in 1984"))) == [0]
    assert sorted(placed(marked("ice-cream", "man"), split("ice-cream man"))) == [2]


def test_words_that_repeat_without_end_are_noticed() -> None:
    assert is_too_repetitive(marked(*["a"] * 2000), split("a " * 2000))
    assert not is_too_repetitive(marked(*["a", "b"] * 200), split("a b " * 200))
