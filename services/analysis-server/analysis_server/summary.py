"""What a comparison means, in a few plain sentences for the learner: English and Korean, from the numbers alone."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from analysis_server.comparison import Comparison, Contours, Word
from analysis_server.voice import FRAME_S, Floats, Spoken

_WEAK_WORD = 75.0
_TEMPO = 1.1
_MOVE = 2.0  # semitones over a word: an intended rise or fall ('t Hart 1981: under 1.5 to 2 is seldom noticed)
_FLAT = 0.6  # of the reference's spread
_MUCH_EXTRA = 0.25  # share of the speech
_MIN_FRAMES = 8
_NAMED = 5


class Sentence(NamedTuple):
    """One sentence in both languages."""

    en: str
    ko: str


def summarise(comparison: Comparison) -> dict[str, str] | None:
    """Return {"en": …, "ko": …}, at most five sentences each, or None when there is nothing to say."""
    sentences = list(_sentences(comparison))
    if not sentences:
        return None
    return {"en": " ".join(one.en for one in sentences), "ko": " ".join(one.ko for one in sentences)}


def _sentences(comparison: Comparison) -> Iterator[Sentence]:
    if comparison.words and 0 < comparison.evidence < 1:
        yield _of_doubt(comparison.words)
        return
    yield from _of_words(comparison)
    if comparison.extra >= _MUCH_EXTRA:
        yield Sentence("Much else is to be heard in it.", "대본에 없는 소리도 많이 들립니다.")
    pronunciation = comparison.scores.get("pronunciation")
    if pronunciation is not None and not pronunciation.score:
        return  # a recording that sounds nothing like the reference has no tempo or melody to compare
    timing = comparison.scores.get("timing")
    if timing is not None:
        yield from _of_tempo(timing.details["tempo_ratio"])
    if "pitch" in comparison.scores and comparison.contours is not None:
        yield from _of_pitch(comparison.contours, comparison.words or [])


def _of_doubt(words: list[Word]) -> Sentence:
    judged = [word.matched for word in words if word.matched is not None]
    return Sentence(
        f"Your recording hardly seems to be of this script: at most {sum(judged)} of {len(judged)} words are in it.",
        f"녹음이 이 대본과 거의 맞지 않습니다. {len(judged)}개 단어 중 많아야 {sum(judged)}개가 들립니다.",
    )


def _of_words(comparison: Comparison) -> Iterator[Sentence]:
    judged = [word for word in comparison.words or () if word.matched is not None]
    found = [word for word in judged if word.matched]
    missing = [word.word for word in judged if not word.matched]
    if judged and not found:
        yield Sentence("None of the words was found in your recording.", "녹음에서 대본의 단어를 찾지 못했습니다.")
    elif missing:
        named = ", ".join(f"'{word}'" for word in missing[:_NAMED]) + (" …" if len(missing) > _NAMED else "")
        counts = f"{len(found)} of {len(judged)} words were found in your recording; not found: {named}."
        yield Sentence(
            counts, f"{len(judged)}개 단어 중 {len(found)}개를 녹음에서 찾았습니다. 찾지 못한 단어: {named}."
        )
    elif judged:
        yield Sentence(
            f"All {len(judged)} words were found in your recording.",
            f"단어 {len(judged)}개를 모두 녹음에서 찾았습니다.",
        )
    elif "pronunciation" in comparison.scores and not comparison.scores["pronunciation"].score:
        yield Sentence(
            "Your recording sounds nothing like the actor's line.", "녹음이 배우의 대사와 비슷하지 않습니다."
        )
    yield from _of_the_weakest(found)


def _of_the_weakest(found: list[Word]) -> Iterator[Sentence]:
    scored = [(word.score, word.word) for word in found if word.score is not None]
    if scored and min(scored)[0] < _WEAK_WORD:
        word = min(scored)[1]
        yield Sentence(
            f"Work on '{word}' first: its sounds are the furthest off.",
            f"'{word}'의 소리가 가장 많이 다르니 먼저 연습하세요.",
        )


def _of_tempo(ratio: float) -> Iterator[Sentence]:
    percent = round(100 * abs(ratio - 1))
    if ratio > _TEMPO:
        yield Sentence(f"You speak {percent} % faster than the actor.", f"배우보다 {percent}% 빠르게 말합니다.")
    elif ratio < 1 / _TEMPO:
        yield Sentence(f"You speak {percent} % slower than the actor.", f"배우보다 {percent}% 느리게 말합니다.")


def _of_pitch(contours: Contours, words: list[Word]) -> Iterator[Sentence]:
    if contours.reference is None:
        return
    opposite = [found for word in words if (found := _opposite(contours, word)) is not None]
    if opposite:
        _, word, rises = max(opposite)
        yield _of_direction(word, rises=rises)
        return
    ours, theirs = _spread(contours.recording), _spread(contours.reference)
    if ours < _FLAT * theirs:
        yield Sentence("Your pitch moves less than the actor's.", "음높이의 변화가 배우보다 작습니다.")
    elif theirs < _FLAT * ours:
        yield Sentence("Your pitch moves more than the actor's.", "음높이의 변화가 배우보다 큽니다.")


def _of_direction(word: str, *, rises: bool) -> Sentence:
    if rises:
        return Sentence(
            f"At '{word}' your pitch rises where the actor's falls.",
            f"'{word}'에서 배우는 음이 내려가는데 녹음은 올라갑니다.",
        )
    return Sentence(
        f"At '{word}' your pitch falls where the actor's rises.",
        f"'{word}'에서 배우는 음이 올라가는데 녹음은 내려갑니다.",
    )


def _opposite(contours: Contours, word: Word) -> tuple[float, str, bool] | None:
    """Return how far apart the two pitches move in a word, the word, and whether the recording rises.

    None unless they move in opposite directions.
    """
    if word.recording is None or contours.reference is None:
        return None
    ours, theirs = (_move(track, word.recording) for track in (contours.recording, contours.reference))
    if min(abs(ours), abs(theirs)) < _MOVE or ours * theirs > 0:
        return None
    return abs(ours - theirs), word.word, ours > 0


def _move(semitones: Floats, word: Spoken) -> float:
    """Return how many semitones the pitch moves over a word, by its regression line; 0 when little of it is voiced."""
    within = semitones[round(word.start_s / FRAME_S) : round(word.end_s / FRAME_S)]
    at = np.flatnonzero(~np.isnan(within))
    if len(at) < _MIN_FRAMES:
        return 0.0
    return float(np.polyfit(at, within[at], 1)[0] * (at[-1] - at[0]))


def _spread(semitones: Floats) -> float:
    return float(np.nanstd(semitones))
