"""Reads Praat's TextGrid files: the words and phones that somebody marked."""

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import parselmouth
from parselmouth.praat import call

from analysis_server.errors import UnusableFileError
from analysis_server.voice import Spoken

_WORDS, _PHONES = {"word", "words"}, {"phone", "phones"}
_PAUSES = {"", "sil", "sp", "spn", "pau", "<eps>", "<sil>", "<p:>"}  # of MFA, Kaldi, Festival and MAUS
_MAX_INTERVALS = 20_000
_TOUCH_S = 0.001  # programs round times, so that neighbours seem to overlap


def read(path: Path, end_s: float) -> tuple[list[Spoken], list[Spoken]]:
    """Return the words and the phones of a TextGrid: long, short or binary, in UTF-8 or UTF-16. Runs in a worker.

    Times are seconds from the TextGrid's own beginning, `end_s` at most. Words are the intervals of the tiers that are
    named `words` or `word` (or, as MFA names them, `speaker - words`). Without such tiers, words are the intervals of
    the first interval tier that is not of phones, if its labels are single words. Phones are the intervals of the tiers
    named `phones` or `phone`; there may be none. Pauses are left out.

    Raises UnusableFileError `malformed` or `without_words`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            grid = _opened(path)
            tiers = list(_interval_tiers(grid))
            begin_s = float(call(grid, "Get start time"))
    except (parselmouth.PraatError, UserWarning, UnicodeError):
        raise UnusableFileError("malformed", "Praat cannot read it as a TextGrid.") from None
    words = _spoken(_word_tiers(tiers), begin_s, end_s)
    if not words:
        raise UnusableFileError("without_words", "It has no tier with words.")
    return words, _spoken(_named(tiers, _PHONES), begin_s, end_s)


_Tier = tuple[str, list[Spoken]]


def _opened(path: Path) -> parselmouth.TextGrid:
    """Read the file with Praat, which knows every form of TextGrid; refuse the other kinds of file that Praat reads."""
    with path.open("rb") as file:
        head = file.read(200).replace(b"\0", b"")  # for ASCII, UTF-16 is UTF-8 with zeros in between
    if b"TextGrid" not in head:
        raise UnusableFileError("malformed", "It is no TextGrid.")
    return parselmouth.read(str(path))


def _interval_tiers(grid: parselmouth.TextGrid) -> Iterator[_Tier]:
    for tier in range(1, int(call(grid, "Get number of tiers")) + 1):
        if call(grid, "Is interval tier", tier):
            yield str(call(grid, "Get tier name", tier)), list(_intervals(grid, tier))


def _intervals(grid: parselmouth.TextGrid, tier: int) -> Iterator[Spoken]:
    count = int(call(grid, "Get number of intervals", tier))
    if count > _MAX_INTERVALS:
        raise UnusableFileError("malformed", f"A tier has more than {_MAX_INTERVALS} intervals.")
    for index in range(1, count + 1):
        label = str(call(grid, "Get label of interval", tier, index)).strip()
        if label.lower() not in _PAUSES:
            start_s = float(call(grid, "Get start time of interval", tier, index))
            yield Spoken(label, start_s, float(call(grid, "Get end time of interval", tier, index)))


def _named(tiers: Sequence[_Tier], names: set[str]) -> list[list[Spoken]]:
    return [intervals for name, intervals in tiers if name.rpartition(" - ")[2].strip().lower() in names]


def _word_tiers(tiers: Sequence[_Tier]) -> list[list[Spoken]]:
    others = [intervals for name, intervals in tiers if not _named([(name, intervals)], _PHONES)]
    single = others[:1] if others and not any(" " in one.name for one in others[0]) else []
    return _named(tiers, _WORDS) or single


def _spoken(tiers: Sequence[list[Spoken]], begin_s: float, end_s: float) -> list[Spoken]:
    """Merge the tiers of several speakers, sorted by time from the TextGrid's beginning."""
    for tier in tiers:
        _check([time - begin_s for one in tier for time in one[1:]], end_s)
    moved = [one._replace(start_s=one.start_s - begin_s, end_s=one.end_s - begin_s) for tier in tiers for one in tier]
    return sorted(moved, key=lambda one: (one.start_s, one.end_s))


def _check(times_s: list[float], end_s: float) -> None:
    if not all(map(math.isfinite, times_s)):
        raise UnusableFileError("malformed", "It has times that are no numbers.")
    if any(later < earlier - _TOUCH_S for earlier, later in pairwise([0.0, *times_s])):
        raise UnusableFileError("malformed", "Its times do not ascend.")
    if times_s and times_s[-1] > end_s:
        raise UnusableFileError("malformed", "It goes on after the end of the reference.")
