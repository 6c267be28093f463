"""Reads Praat's TextGrid files: the words and phones that somebody marked."""

import math
import re
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import parselmouth
from parselmouth.praat import call

from analysis_server import script_words
from analysis_server.errors import UnusableFileError
from analysis_server.voice import Spoken

_MAX_INTERVALS = 100_000  # in all tiers: words and phones of an hour of hurried speech have 60,000
_MAX_WORDS = 20_000
_MAX_TIERS = 100  # two for each of 50 speakers
_TOUCH_S = 0.001  # programs round times, so that neighbours seem to overlap
_LONGEST_LABEL = 100  # of a word or a phone

_WORDS = {"word", "words", "ort", "ort-mau"}  # Praat, MFA, WebMAUS
_PHONES = {"phone", "phones", "phoneme", "phonemes", "mau"}
_PAUSES = {"", "sil", "sp", "spn", "pau", "#", "_", "-"}  # of MFA, Kaldi and Festival
_NOISE = re.compile(r"<.*>|\{.*\}|\[.*\]", re.DOTALL)  # "<p:>" of MAUS, "<eps>" of Kaldi, "{NS}" of P2FA
_DECIMAL_COMMA = re.compile(r"[0-9],[0-9]")
_TOKEN = re.compile(r'"([^"]*(?:""[^"]*)*)"|(\S+)')

_OF_SCRIPTS = 0.25  # of a tier's labels; a tier of phones has words by chance, such as "I" and "a"
_MOSTLY = 0.5
_NEARLY_ALL = 0.9
_PHONE_LETTERS = 3.0  # mean of the labels; a syllable has more


class _Tier(NamedTuple):
    name: str
    intervals: list[Spoken]


def read(path: Path, end_s: float, told: Collection[str]) -> tuple[list[Spoken], list[Spoken]]:
    """Return the words and the phones of a TextGrid: long, short or binary, in UTF-8 or UTF-16. Runs in a worker.

    Times are seconds from the TextGrid's own beginning, `end_s` at most. `told` are the words of the scripts, as
    `script_words.spoken_forms` returns them. The tier with words is the one whose labels are most of all words of the
    scripts, whatever its name and place. Without any such tier, and without scripts, it is the first one that is named
    like one, or else the first one of single words that is not of phones. Phones are the labels of the tier that parts
    the words; there may be none. What further speakers say in tiers of their own is added to both. Pauses are left out.

    Raises UnusableFileError `malformed` or `without_words`.
    """
    tiers = [tier for tier in _tiers(_plain_form(path)) if _is_of_single_labels(tier)]
    words = _words(tiers, told)
    if not words:
        raise UnusableFileError("without_words", "It has no tier with words.")
    if sum(len(tier.intervals) for tier in words) > _MAX_WORDS:
        raise UnusableFileError("malformed", f"It has more than {_MAX_WORDS} words.")
    phones = _phones([tier for tier in tiers if tier not in words], words)
    return _spoken(words, end_s), _spoken(phones, end_s)


def _plain_form(path: Path) -> str:
    """Return what Praat writes of the file in its short form: Praat reads every form, and mends what it can."""
    given = path.read_bytes()
    _check_kind(given)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("error", UserWarning)
            plain = Path(folder, "plain")
            call(parselmouth.read(str(path)), "Save as short text file", str(plain))
            content = plain.read_bytes()
    except (parselmouth.PraatError, UserWarning, UnicodeError):
        raise UnusableFileError("malformed", "Praat cannot read it as a TextGrid.") from None
    text = _decoded(content)
    _check_all_read(given, text)
    return text


def _decoded(content: bytes) -> str:
    is_wide = content.startswith((b"\xfe\xff", b"\xff\xfe"))
    return content.decode("utf-16" if is_wide else "utf-8", "replace")


def _check_all_read(content: bytes, plain: str) -> None:
    """Refuse what Praat passes over without a word: part of a number with a decimal comma, and intervals.

    It keeps one interval of those that begin at the same time, which they do when one has no length, and reads no more
    intervals than the file says that there are. Binary files are Praat's own, and have none of these.
    """
    if content.startswith(b"ooBinaryFile"):
        return
    parts = _decoded(content).split('"')
    if any(_DECIMAL_COMMA.search(outside) for outside in parts[::2]):
        raise UnusableFileError("malformed", "It has decimal commas in place of points.")
    if len(parts) > len(plain.split('"')):
        reason = "Two of its intervals begin at the same time, or it has more than it says."
        raise UnusableFileError("malformed", reason)


def _check_kind(content: bytes) -> None:
    """Refuse other kinds of file that Praat reads, and a TextGrid without any tier, which crashes it."""
    plain = content.replace(b"\0", b"")  # for ASCII, UTF-16 is UTF-8 with zeros in between
    kind, _, rest = plain[:200].partition(b"TextGrid")
    if not rest:
        raise UnusableFileError("malformed", "It is no TextGrid.")
    begin = content.find(b"TextGrid") + len("TextGrid") + 16  # after two times of 8 bytes
    is_empty = content[begin : begin + 1] == b"\0" if b"ooBinaryFile" in kind else _says_absent(plain)
    if is_empty:
        raise UnusableFileError("without_words", "It has no tier with words.")


def _says_absent(plain: bytes) -> bool:
    return b"<absent>" in plain.partition(b'Tier"')[0].lower()


def _tiers(plain: str) -> Iterator[_Tier]:
    """Yield the interval tiers of a TextGrid in Praat's own short form, without pauses.

    The form is: "ooTextFile" "TextGrid" begin end <exists> count, then for each tier its class, name, begin, end and
    count, and for each of its intervals begin, end and label, or for each of its points time and label.
    """
    _, _, body = plain.partition('"TextGrid"')
    tokens = (match[1] if match[2] is None else match[2] for match in _TOKEN.finditer(body))
    begin_s, _, _, count = _time(next(tokens)), next(tokens), next(tokens), int(next(tokens))
    if count > _MAX_TIERS:
        raise UnusableFileError("malformed", f"It has more than {_MAX_TIERS} tiers.")
    left = _MAX_INTERVALS
    for _ in range(count):
        kind, name, _, _, size = (next(tokens) for _ in range(5))
        left -= int(size)
        if left < 0:
            raise UnusableFileError("malformed", f"Its tiers have more than {_MAX_INTERVALS} intervals.")
        if kind == "IntervalTier":
            rows = [(next(tokens), next(tokens), next(tokens)) for _ in range(int(size))]
            yield _Tier(name, list(_intervals(rows, begin_s)))
        else:
            for _ in range(2 * int(size)):
                next(tokens)


def _intervals(rows: Iterable[tuple[str, str, str]], begin_s: float) -> Iterator[Spoken]:
    for start, end, text in rows:
        label = text.replace('""', '"').strip()
        if label.lower() not in _PAUSES and not _NOISE.fullmatch(label):
            yield Spoken(label, _time(start) - begin_s, _time(end) - begin_s)


def _time(text: str) -> float:
    return math.nan if text == "--undefined--" else float(text)


def _is_of_single_labels(tier: _Tier) -> bool:
    """Tell whether a tier has labels of words or phones, not of sentences; a number may be marked as several words."""
    labels = [one.name for one in tier.intervals]
    parted = sum(" " in label for label in labels)
    return bool(labels) and parted <= _OF_SCRIPTS * len(labels) and max(map(len, labels)) <= _LONGEST_LABEL


def _role(tier: _Tier) -> str:
    """Return a tier's name without its speaker's, which MFA puts before it."""
    return tier.name.rpartition(" - ")[2].strip().lower()


def _words(tiers: Sequence[_Tier], told: Collection[str]) -> list[_Tier]:
    known = [(_count_of(tier, told), tier) for tier in tiers] if told else []
    of_scripts = [(count, tier) for count, tier in known if count >= _OF_SCRIPTS * len(tier.intervals)]
    if of_scripts:  # a few notes may all be words of the scripts, so that the number counts as much as the share
        ordered = sorted(of_scripts, key=lambda one: one[0] ** 2 / len(one[1].intervals), reverse=True)
        return _apart(tier for _, tier in ordered)
    named = [tier for tier in tiers if _role(tier) in _WORDS]
    others = [tier for tier in tiers if _role(tier) not in _PHONES and not any(_parts(tier, one) for one in tiers)]
    return _apart(named) or others[:1]


def _count_of(tier: _Tier, told: Collection[str]) -> int:
    return sum(_is_told(one.name, told) for one in tier.intervals)


def _is_told(label: str, told: Collection[str]) -> bool:
    if script_words.folded(label) in told:
        return True
    return not label.isalpha() and not script_words.spoken_forms(label).isdisjoint(told)


def _phones(tiers: Sequence[_Tier], words: Sequence[_Tier]) -> list[_Tier]:
    named = [tier for tier in tiers if _role(tier) in _PHONES]
    finer = [tier for tier in tiers if any(_parts(tier, one) for one in words)]
    return _apart(named) or _apart(sorted(finer, key=lambda tier: len(tier.intervals), reverse=True))


def _parts(tier: _Tier, whole: _Tier) -> bool:
    """Tell whether a tier looks like the phones of another one: more labels, short ones, nearly all of them within."""
    if len(tier.intervals) <= len(whole.intervals):
        return False
    letters = sum(len(one.name) for one in tier.intervals) / len(tier.intervals)
    return letters <= _PHONE_LETTERS and _share_within(tier, whole) >= _NEARLY_ALL


def _apart(tiers: Iterable[_Tier]) -> list[_Tier]:
    """Return the first tier, and those that have their labels mostly where none of the tiers before them has any.

    These are of other speakers. The rest say the same in another way.
    """
    chosen: list[_Tier] = []
    for tier in tiers:
        if all(_share_within(tier, other) < _MOSTLY for other in chosen):
            chosen.append(tier)
    return chosen


def _share_within(tier: _Tier, other: _Tier) -> float:
    """Return the share of a tier's labels whose middle lies within a label of the other tier."""
    within, at = 0, 0
    for one in tier.intervals:
        middle = (one.start_s + one.end_s) / 2
        while at < len(other.intervals) and other.intervals[at].end_s <= middle:
            at += 1
        within += at < len(other.intervals) and other.intervals[at].start_s <= middle
    return within / len(tier.intervals)


def _spoken(tiers: Sequence[_Tier], end_s: float) -> list[Spoken]:
    """Merge the tiers of several speakers, sorted by time."""
    for tier in tiers:
        _check([time for one in tier.intervals for time in one[1:]], end_s)
    return sorted((one for tier in tiers for one in tier.intervals), key=lambda one: (one.start_s, one.end_s))


def _check(times_s: list[float], end_s: float) -> None:
    if not all(map(math.isfinite, times_s)):
        raise UnusableFileError("malformed", "It has times that are no numbers.")
    if any(later < earlier - _TOUCH_S for earlier, later in pairwise([0.0, *times_s])):
        raise UnusableFileError("malformed", "Its times do not ascend.")
    if times_s and times_s[-1] > end_s:
        raise UnusableFileError("malformed", "It goes on after the end of the reference.")
