"""The comparison says what a listener would, over every pair of the validation; and the README has its table."""

import re
from pathlib import Path

import pytest

from tests.validation.pairs import KINDS, Row, rows, table

README = Path(__file__).parents[3] / "services" / "analysis-server" / "README.md"
TOLERANCE = 3  # points: other versions of espeak-ng and of the libraries sound and hear a little differently

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def all_rows() -> list[Row]:
    return list(rows())


def failing(all_rows: list[Row], first: str, second: str, by: float, name: str | None = None) -> list[str]:
    """The pairs for which the first kind is not above the second by so many points (overall, or one of the scores)."""

    def of(row: Row, kind: str) -> float:
        return row.score(kind, name) if name else row.overall(kind)

    return [
        f"{row.sentence} {row.voice}: {of(row, first):.0f}, {of(row, second):.0f}"
        for row in all_rows
        if of(row, first) < of(row, second) + by
    ]


def test_there_are_at_least_20_pairs(all_rows: list[Row]) -> None:
    assert len({(row.sentence, row.voice) for row in all_rows}) >= 20


def test_the_reference_against_itself_has_at_least_95_everywhere(all_rows: list[Row]) -> None:
    assert min(row.overall("itself") for row in all_rows) >= 95
    for name in ("pronunciation", "timing", "pitch"):
        assert min(row.score("itself", name) for row in all_rows) >= 95
    words = [word.score for row in all_rows for word in row.of["itself"].words or ()]
    assert min(score for score in words if score is not None) >= 95
    assert None not in words


def test_the_same_sentence_by_another_voice_is_far_above_another_sentence_by_the_same_voice(
    all_rows: list[Row],
) -> None:
    assert failing(all_rows, "other_voice", "other_sentence", by=40) == []


@pytest.mark.parametrize(
    ("first", "second", "by"),
    [
        *[("itself", kind, 1) for kind in KINDS if kind != "itself"],
        *[(kind, "half", 15) for kind in ("other_voice", "higher", "slow", "fast", "monotone", "inverted")],
        ("other_voice", "introduced", 1),
        ("introduced", "half", 10),
        ("introduced", "other_sentence", 30),
        ("higher", "monotone", 8),
        ("monotone", "inverted", -2),
        ("higher", "slow", 0),
        ("higher", "fast", 0),
        ("half", "other_sentence", 5),
        ("other_sentence", "noise", 0),
        ("other_sentence", "silence", 0),
        ("half", "noise", 25),
        ("half", "silence", 25),
    ],
)
def test_recordings_come_out_in_the_order_of_a_listener(
    first: str, second: str, by: float, all_rows: list[Row]
) -> None:
    assert failing(all_rows, first, second, by) == []


@pytest.mark.parametrize(
    ("first", "second", "by", "name"),
    [
        ("higher", "monotone", 40, "pitch"),
        ("monotone", "inverted", 0, "pitch"),
        ("other_voice", "slow", 10, "timing"),
        ("other_voice", "fast", 10, "timing"),
        ("monotone", "slow", 10, "timing"),
        ("slow", "half", 25, "pronunciation"),
        ("fast", "half", 25, "pronunciation"),
    ],
)
def test_each_score_says_what_it_is_of(first: str, second: str, by: float, name: str, all_rows: list[Row]) -> None:
    assert failing(all_rows, first, second, by, name) == []


def test_the_table_in_the_readme_is_what_comes_out(all_rows: list[Row]) -> None:
    written = re.search(r"<!-- validation -->\n(.*?)\n<!-- /validation -->", README.read_text(), re.DOTALL)
    assert written is not None
    kept, made = (_cells(text) for text in (written[1], table(all_rows)))
    assert [row[0] for row in kept] == [row[0] for row in made]
    assert kept[:2] == made[:2]
    for old, new in zip(kept[2:], made[2:], strict=True):
        assert [int(cell) for cell in old[1:]] == pytest.approx([int(cell) for cell in new[1:]], abs=TOLERANCE), old[0]


def _cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
