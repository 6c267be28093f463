"""The TextGrids that the field writes, and the broken ones."""

import random
import struct
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parselmouth import TextGrid
from parselmouth.praat import call

from analysis_server.errors import UnusableFileError
from analysis_server.script_words import spoken_forms
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


def parsed(
    folder: Path, content: str | bytes, end_s: float = 2.0, told: Collection[str] = ()
) -> tuple[list[Spoken], list[Spoken]]:
    path = folder / "textgrid"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path, end_s, told)


def fault(folder: Path, content: str | bytes, end_s: float = 2.0, told: Collection[str] = ()) -> str:
    with pytest.raises(UnusableFileError) as refused:
        parsed(folder, content, end_s, told)
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
    assert read(tmp_path / "textgrid", 2.0, ()) == (SPOKEN, [Spoken("HH", 0.5, 0.75), Spoken("ɪ", 0.75, 1.0)])


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


# What WebMAUS writes of "He's here": words, their canonical phones, and the phones in SAMPA.
ORT: Tier = ("ORT-MAU", [(0, 0.5, "<p:>"), (0.5, 1, "He's"), (1, 1.6, "here,"), (1.6, 2, "<p:>")])
KAN: Tier = ("KAN-MAU", [(0, 0.5, "<p:>"), (0.5, 1, "hi:z"), (1, 1.6, "hI@"), (1.6, 2, "<p:>")])
MAU: Tier = (
    "MAU",
    [
        *((0, 0.5, "<p:>"), (0.5, 0.6, "h"), (0.6, 0.9, "i:"), (0.9, 1, "z")),
        *((1, 1.1, "h"), (1.1, 1.6, "I@"), (1.6, 2, "<p:>")),
    ],
)
TOLD = {"he's", "here"}


@pytest.mark.parametrize(("told", "named"), [(TOLD, True), (TOLD, False), ((), True)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (2, 0, 1), (0, 2, 1)])
def test_words_and_phones_are_told_apart_by_what_is_in_them(
    tmp_path: Path, order: tuple[int, ...], named: bool, told: Collection[str]
) -> None:
    tiers = [(ORT, KAN, MAU)[at] for at in order]
    if not named:
        tiers = [(f"tier {at}", tier) for at, (_, tier) in enumerate(tiers)]
    words, phones = parsed(tmp_path, short(*tiers), told=told)
    assert [word.name for word in words] == ["He's", "here,"]
    assert [phone.name for phone in phones] == ["h", "i:", "z", "h", "I@"]


def test_the_canonical_tier_is_no_tier_of_words_even_when_it_comes_first(tmp_path: Path) -> None:
    words, _ = parsed(tmp_path, short(KAN, MAU, ORT), told=TOLD)
    assert [word.name for word in words] == ["He's", "here,"]


def test_names_that_mislead_do_not(tmp_path: Path) -> None:
    words, phones = parsed(tmp_path, short(("words", MAU[1]), ("phones", ORT[1])), told=TOLD)
    assert [word.name for word in words] == ["He's", "here,"]
    assert len(phones) == 5


def test_a_note_that_is_a_word_of_the_scripts_does_not_make_its_tier_the_words(tmp_path: Path) -> None:
    words, _ = parsed(tmp_path, short(("note", [(0, 2, "here")]), ORT), told=TOLD)
    assert [word.name for word in words] == ["He's", "here,"]


def test_phones_that_are_spelled_like_words_of_the_scripts_are_no_words(tmp_path: Path) -> None:
    phones: Tier = ("p", [(0, 0.5, "I"), (0.5, 1, "z"), (1, 1.5, "d"), (1.5, 1.8, "n"), (1.8, 2, "k")])
    assert fault(tmp_path, short(("phones", phones[1])), told={"i", "think"}) == "without_words"


def test_numbers_are_words_of_the_scripts_in_digits_and_as_they_are_said(tmp_path: Path) -> None:
    told = spoken_forms("back in the year 1984")
    for year in (["1984"], ["nineteen", "eighty", "four"], ["nineteen eighty-four"]):
        marks = ["back", "in", "the", "year", *year]
        intervals = [(at / len(marks), (at + 1) / len(marks), mark) for at, mark in enumerate(marks)]
        words, _ = parsed(tmp_path, short(MAU, ("x", intervals)), told=told)
        assert [word.name for word in words] == marks


def test_korean_tier_names_and_labels_are_read(tmp_path: Path) -> None:
    words, phones = parsed(tmp_path, short(("음소", MAU[1]), ("단어", [(0, 1, "소리"), (1, 2, "here")])), told=TOLD)
    assert [word.name for word in words] == ["소리", "here"]
    assert len(phones) == 5


@pytest.mark.parametrize(
    "pause", ["", " ", "sil", "SP", "spn", "<p:>", "<P>", "<usb>", "<eps>", "<unk>", "{NS}", "[noise]"]
)
def test_pauses_and_noises_are_no_words(tmp_path: Path, pause: str) -> None:
    assert parsed(tmp_path, short(("words", [(0, 1, "He"), (1, 2, pause)])))[0] == [Spoken("He", 0, 1)]


def test_doubled_quotes_line_breaks_and_points_are_read(tmp_path: Path) -> None:
    spelled = [(1.5 + at / 16, 1.5 + (at + 1) / 16, letter) for at, letter in enumerate("abcdefgh")]
    points = '"TextTier"\n"points"\n0\n2\n1\n1\n"a ""point"""\n'
    content = short(("words", [(0, 1, 'say ""it""'), (1, 1.5, "so\nnow"), *spelled]))
    content = content.replace("<exists>\n1\n", f"<exists>\n2\n{points}")
    assert [word.name for word in parsed(tmp_path, content)[0]] == ['say "it"', "so\nnow", *"abcdefgh"]


def test_two_speakers_words_come_in_order_of_time(tmp_path: Path) -> None:
    first: Tier = ("A - words", [(0, 0.5, "one"), (0.5, 1, ""), (1, 2, "three")])
    second: Tier = ("B - words", [(0, 0.5, ""), (0.5, 1, "two"), (1, 2, "sil")])
    words, phones = parsed(tmp_path, short(first, second))
    assert [word.name for word in words] == ["one", "two", "three"]
    assert phones == []


def test_the_same_words_in_two_tiers_are_read_once(tmp_path: Path) -> None:
    assert parsed(tmp_path, short(WORDS, ("word", WORDS[1])))[0] == SPOKEN
    assert parsed(tmp_path, short(WORDS, ("copy", WORDS[1])), told={"he", "소리"})[0] == SPOKEN


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (short(("words", [(0, 0.5, "ask"), (0.5, 0.5, ""), (0.5, 2, "what")])), "begin at the same time"),
        (short(("words", [(0, 0, "소리"), (0, 2, "what")])), "begin at the same time"),
        (short(WORDS).replace("\n4\n", "\n3\n"), "more than it says"),
        (short(("words", [(0, 0.5, "ask"), (0.5, 1.5, "not")])).replace("0.5", "0,5"), "decimal commas"),
    ],
)
def test_what_praat_passes_over_in_silence_is_refused(tmp_path: Path, content: str, reason: str, encoding: str) -> None:
    with pytest.raises(UnusableFileError) as refused:
        parsed(tmp_path, content.encode(encoding))
    assert refused.value.fault == "malformed"
    assert reason in refused.value.sentence


def test_an_interval_of_no_length_that_hides_no_other_is_read(tmp_path: Path) -> None:
    words, _ = parsed(tmp_path, short(("words", [(0, 0.5, "5,000"), (0.5, 2, "what"), (2, 2, "")])))
    assert [word.name for word in words] == ["5,000", "what"]


@pytest.mark.parametrize("tiers", [[], [PHONES], [("words", [(0, 2, "sil")])]])
def test_a_textgrid_without_words_says_so(tmp_path: Path, tiers: list[Tier]) -> None:
    assert fault(tmp_path, short(*tiers)) == "without_words"


def test_a_textgrid_without_any_tier_is_refused_before_it_crashes_praat(tmp_path: Path) -> None:
    assert fault(tmp_path, f"{HEADER}0\n2\n<absent>\n") == "without_words"
    assert fault(tmp_path, f"{HEADER}0\n2\n<absent>\n".encode("utf-16")) == "without_words"
    assert fault(tmp_path, b"ooBinaryFile\x08TextGrid" + struct.pack(">dd", 0, 2) + b"\0") == "without_words"


def many(tiers: int, intervals: int) -> str:
    """As many tiers of words as this, each with as many intervals."""
    words = [(2 * at / intervals, 2 * (at + 1) / intervals, "he") for at in range(intervals)]
    return short(*[(f"tier {at}", words) for at in range(tiers)])


@pytest.mark.parametrize(
    ("tiers", "intervals", "reason"),
    [
        (90_000, 1, "It has more than 100 tiers."),
        (101, 0, "It has more than 100 tiers."),
        (100, 1001, "Its tiers have more than 100000 intervals."),
        (1, 100_001, "Its tiers have more than 100000 intervals."),
        (1, 20_001, "It has more than 20000 words."),
    ],
)
def test_more_than_anybody_marks_is_refused_at_once(tmp_path: Path, tiers: int, intervals: int, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(UnusableFileError) as refused:
        parsed(tmp_path, many(tiers, intervals), told={"he"})
    assert (refused.value.fault, refused.value.sentence) == ("malformed", reason)
    assert time.process_time() - began < 3


@pytest.mark.parametrize("told", [{"he"}, {"she"}, ()])
def test_the_most_that_is_read_costs_little(tmp_path: Path, told: Collection[str]) -> None:
    content = many(100, 1000)
    began = time.process_time()
    assert len(parsed(tmp_path, content, told=told)[0]) == 1000
    assert time.process_time() - began < 5


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
