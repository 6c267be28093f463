"""The TextGrids that the field writes, and the broken ones."""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parselmouth import TextGrid
from parselmouth.praat import call

from analysis_server.errors import UnusableFileError
from analysis_server.textgrid import read
from analysis_server.voice import Spoken

HEADER = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n'
Tier = tuple[str, list[tuple[float, float, str]]]
WORDS: Tier = ("words", [(0, 0.5, ""), (0.5, 1, "He"), (1, 1.25, "소리"), (1.25, 2, "sp")])
PHONES: Tier = ("phones", [(0, 0.5, "sil"), (0.5, 0.75, "HH"), (0.75, 1, "ɪ"), (1, 2, "")])
SPOKEN = [Spoken("He", 0.5, 1.0), Spoken("소리", 1.0, 1.25)]


def short(*tiers: Tier, begin: float = 0, end: float = 2) -> str:
    """A short TextGrid, as Praat writes it."""
    lines = [f"{begin}\n{end}\n<exists>\n{len(tiers)}"]
    for name, intervals in tiers:
        lines.append(f'"IntervalTier"\n"{name}"\n{begin}\n{end}\n{len(intervals)}')
        lines += [f'{start}\n{stop}\n"{text}"' for start, stop, text in intervals]
    return HEADER + "\n".join(lines) + "\n"


def parsed(folder: Path, content: str | bytes, end_s: float = 2.0) -> tuple[list[Spoken], list[Spoken]]:
    path = folder / "textgrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path, end_s)


def fault(folder: Path, content: str | bytes, end_s: float = 2.0) -> str:
    with pytest.raises(UnusableFileError) as refused:
        parsed(folder, content, end_s)
    assert refused.value.sentence.endswith(".")
    return refused.value.fault


def marked() -> TextGrid:
    """The same as `short(WORDS, PHONES)`, with a tier of points between, in Praat's own memory."""
    grid = call("Create TextGrid", 0.0, 2.0, "words points phones", "points")
    for tier, intervals in ((1, WORDS[1]), (3, PHONES[1])):
        for start, _, _ in intervals[1:]:
            call(grid, "Insert boundary", tier, start)
        for index, (_, _, text) in enumerate(intervals, start=1):
            call(grid, "Set interval text", tier, index, text)
    call(grid, "Insert point", 2, 1.0, "a point")
    return grid


@pytest.mark.parametrize("form", ["text", "short text", "binary"])
def test_what_praat_writes_is_read(tmp_path: Path, form: Literal["text", "short text", "binary"]) -> None:
    call(marked(), f"Save as {form} file", str(tmp_path / "textgrid"))
    assert read(tmp_path / "textgrid", 2.0) == (SPOKEN, [Spoken("HH", 0.5, 0.75), Spoken("ɪ", 0.75, 1.0)])


@pytest.mark.parametrize(
    "encoded",
    [
        lambda text: text.encode(),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.rstrip().encode(),
    ],
)
def test_any_encoding_and_line_end_is_read(tmp_path: Path, encoded: Callable[[str], bytes]) -> None:
    assert parsed(tmp_path, encoded(short(WORDS)))[0] == SPOKEN


@pytest.mark.parametrize("name", ["word", "Words", "speaker - words", "김 철수 - words"])
def test_the_words_are_found_by_their_tiers_name(tmp_path: Path, name: str) -> None:
    other: Tier = ("notes", [(0, 2, "laughs")])
    assert parsed(tmp_path, short(other, (name, WORDS[1]), PHONES))[0] == SPOKEN


def test_without_a_name_the_first_tier_that_has_no_phones_is_taken(tmp_path: Path) -> None:
    assert parsed(tmp_path, short(PHONES, ("ORT", WORDS[1]), ("other", [(0, 2, "x")])))[0] == SPOKEN


def test_a_tier_of_sentences_is_no_tier_of_words(tmp_path: Path) -> None:
    assert fault(tmp_path, short(("utterance", [(0, 2, "He said it")]))) == "without_words"


def test_two_speakers_words_come_in_order_of_time(tmp_path: Path) -> None:
    first: Tier = ("A - words", [(0, 0.5, "one"), (0.5, 1, ""), (1, 2, "three")])
    second: Tier = ("B - words", [(0, 0.5, ""), (0.5, 1, "two"), (1, 2, "sil")])
    words, phones = parsed(tmp_path, short(first, second))
    assert [word.name for word in words] == ["one", "two", "three"]
    assert phones == []


def test_times_are_counted_from_the_textgrids_own_beginning(tmp_path: Path) -> None:
    later: Tier = ("words", [(60, 60.5, ""), (60.5, 61, "He"), (61, 62, "")])
    assert parsed(tmp_path, short(later, begin=60, end=62))[0] == [Spoken("He", 0.5, 1.0)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 1000,
        b"RIFF....WAVE",
        b'[{"time": 0, "hz": null}]',
        HEADER.encode(),
        HEADER.replace("TextGrid", "PitchTier").encode(),
        short(WORDS)[:-10].encode(),
        short(WORDS).replace("<exists>\n1", "<exists>\n2").encode(),
        short(("words", [(0, 1, "a"), (0.5, 2, "b")])).encode(),
        short(("words", [(0, 1, "a"), (1, float("nan"), "b")])).encode(),
        short(("words", [(-1, 1, "a"), (1, 2, "b")])).encode(),
        short(("words", [(0, 1e300, "a"), (1e300, 1e301, "b")])).encode(),
        short(("words", [(0, 1, "a"), (1, 5, "b")]), end=5).encode(),
    ],
    ids=range(13),
)
def test_what_is_malformed_is_refused(tmp_path: Path, content: bytes) -> None:
    assert fault(tmp_path, content) == "malformed"


@pytest.mark.parametrize("tiers", [[], [PHONES], [("words", [(0, 2, "sil")])]])
def test_a_textgrid_without_words_says_so(tmp_path: Path, tiers: list[Tier]) -> None:
    assert fault(tmp_path, short(*tiers)) == "without_words"


@given(st.randoms(use_true_random=False))
def test_no_damage_has_another_end_than_a_refusal(chance: random.Random) -> None:
    content = bytearray(short(WORDS, PHONES).encode())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(content))
        piece = chance.choice([b"", b'"', b"\n", b"99999999999", b"-1", b"1e999", b"\0", b"\xff", b"2147483647"])
        content[at : at + chance.randint(0, 20)] = piece
    with tempfile.TemporaryDirectory() as folder:
        try:
            words, phones = parsed(Path(folder), bytes(content))
        except UnusableFileError:
            return
        assert words
        assert all(0 <= one.start_s <= one.end_s <= 2 for one in words + phones)
