"""Finds the words of the scripts among words that somebody marked, by their spelling."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence

from analysis_server import script_words
from analysis_server.script_words import ScriptWord, folded
from analysis_server.voice import Spoken

_MOST_PAIRS = 1_000_000  # of equal words; a text of 5,000 words has 250,000 with itself, and each costs time

_Owned = tuple[str, int]
"""A word as it is said, and the index of the word that is read so."""


def is_too_repetitive(words: Sequence[Spoken], told: Sequence[ScriptWord]) -> bool:
    """Tell whether matching these words with the scripts would take too long."""
    ours, theirs = (Counter(form for form, _ in side) for side in _sides(words, told))
    return sum(count * theirs[form] for form, count in ours.items()) > _MOST_PAIRS


def placed(words: Sequence[Spoken], told: Sequence[ScriptWord]) -> dict[int, Spoken]:
    """Return the marked words that are words of the scripts, by their index in the scripts.

    A number matches whether it was marked in digits or as the words that it is read as.
    """
    ours, theirs = _sides(words, told)
    matcher = difflib.SequenceMatcher(None, [form for form, _ in ours], [form for form, _ in theirs], autojunk=False)
    pairs = [
        (ours[block.a + offset][1], theirs[block.b + offset][1])
        for block in matcher.get_matching_blocks()
        for offset in range(block.size)
    ]
    return dict(_whole(pairs, Counter(at for _, at in ours), Counter(at for _, at in theirs), words, told))


def _sides(words: Sequence[Spoken], told: Sequence[ScriptWord]) -> tuple[list[_Owned], list[_Owned]]:
    marked = [(one, at) for at, word in enumerate(words) for one in script_words.split(word.name)]
    numbered = [(one, at) for at, one in enumerate(told)]
    all_marked, all_told = (script_words.forms(one for one, _ in side) for side in (marked, numbered))
    return list(_said(numbered, all_marked)), list(_said(marked, all_told))


def _said(words: Sequence[tuple[ScriptWord, int]], known: set[str]) -> Iterator[_Owned]:
    """Yield the words of each reading: of the first one whose words the other side has, else of the likeliest."""
    for one, at in words:
        forms = [[folded(word) for word in reading] for reading in one.readings]
        chosen = next((reading for reading in forms if known.issuperset(reading)), forms[0])
        yield from ((form, at) for form in chosen)


def _whole(
    pairs: Sequence[tuple[int, int]],
    of_told: Counter[int],
    of_marked: Counter[int],
    words: Sequence[Spoken],
    told: Sequence[ScriptWord],
) -> Iterator[tuple[int, Spoken]]:
    """Yield the words of the scripts of which everything was matched, with marks that belong to them alone."""
    found: dict[int, list[int]] = {}
    for place, mark in pairs:
        found.setdefault(place, []).append(mark)
    for place, marks in found.items():
        is_whole = len(marks) == of_told[place]
        if is_whole and all(marks.count(mark) == of_marked[mark] for mark in set(marks)):
            yield place, Spoken(told[place].word, words[marks[0]].start_s, words[marks[-1]].end_s)
