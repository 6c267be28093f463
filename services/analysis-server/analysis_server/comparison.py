"""Compares a recording with the reference: words, pitch and timing side by side, and scores of 0 to 100.

Every score is 100 for a recording that is the reference itself. This module's constants are the anchors of the scores;
the README's table says where each comes from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from analysis_server import matching, script_words, warping
from analysis_server.job import Script
from analysis_server.script_words import ScriptWord
from analysis_server.voice import FRAME_S, Floats, Spoken, Voice
from analysis_server.warping import Warp

RATIO_AT_ZERO = 6.0
"""A word's pronunciation is 0 at this many nats per frame below the reference's likelihood ratio (or RATIO_OF_GOOD)."""
RATIO_OF_GOOD = -1.0
"""Without a reference, a word's pronunciation is 100 at this likelihood ratio or above."""
SIMILARITY_AT_ZERO = 0.1
"""The similarity that different words have by chance; the same word has 1."""
SPEECH_SIMILARITY_AT_ZERO = 0.45
"""The same for whole sentences that are warped onto each other freely, where each sound finds a similar one."""
TEMPO_AT_ZERO = 2.0
"""The tempo's half of the timing score is 0 when the recording is twice or half as fast."""
RHYTHM_AT_ZERO = 0.7
"""The rhythm's half is 0 at this mean deviation of the intervals, a natural logarithm after the tempo is taken out."""
PITCH_TOLERANCE = 1.0
"""In semitones squared. Differences that hardly anybody hears ('t Hart 1981) do not make a flat contour wrong."""
PITCH_OVERLAP = 0.7
"""Voices differ in which frames they voice. Fewer than this share of the reference's lower the pitch score."""
HALF_SURE = 50.0
"""Without words: below this pronunciation the two recordings hardly correspond, so timing and pitch count less."""
EXTRA_COST = 0.3
"""The share of its scores that a recording would lose if none of its speech belonged to the scripts. A recording that
speaks the scripts twice loses half of that."""
VOICE_IN_WORDS = 0.9
"""The share of the voiced frames that lie within words in a plain reading, for when no reference shows it."""
MIN_PITCH_FRAMES = 10
INTERVAL_FRAMES = 50
"""When no words are known, the timing is compared in intervals of this length of the reference: half a second."""
WEIGHTS = {"pronunciation": 0.6, "timing": 0.2, "pitch": 0.2}


@dataclass(frozen=True)
class Word:
    """A word of the scripts, and what is known of it in both voices; `matched` is None when it cannot be determined.

    `letters` is how many it is read as.
    """

    word: str
    letters: int
    script: Script
    matched: bool | None
    recording: Spoken | None
    reference: Spoken | None
    ratio: float | None
    similarity: float | None
    score: float | None


class Score(NamedTuple):
    """A score from 0 to 100, how it was computed, and the values that it was computed from."""

    score: float
    method: str
    details: dict[str, float]


class Contours(NamedTuple):
    """Pitch in semitones from each voice's own median, for each frame of the recording; NaN where unvoiced."""

    recording: Floats
    reference: Floats | None


@dataclass(frozen=True)
class Comparison:
    """What could be compared; what could not is a `words` or `contours` of None, or an absent score.

    `evidence` is how strongly the words show that the scripts were spoken at all, 0 to 1. `extra` is the share of the
    speech that does not belong to the scripts.
    """

    words: list[Word] | None
    scores: dict[str, Score]
    overall: float | None
    contours: Contours | None
    evidence: float
    extra: float


def compare(recording: Voice, reference: Voice | None, scripts: Sequence[Script]) -> Comparison:
    """Compare a recording with the reference, using whatever is known of both and of the scripts."""
    told = [(word, script) for script in scripts for word in script_words.split(script.script)]
    if reference is not None and reference.mfcc is not None and not _is_of(reference, len(told)):
        # The reference does not speak these scripts. The reference counts, so the scripts are left out.
        told, recording, reference = [], replace(recording, **_NO_WORDS), replace(reference, **_NO_WORDS)
    ours, theirs = _placed(recording, told), _placed(reference, told)
    both = [(ours[place], theirs[place]) for place in sorted(ours.keys() & theirs.keys())]
    warp = _warp(recording, reference, both)
    words = list(_words(told, recording, reference, warp)) if recording.words is not None or theirs else []
    evidence = recording.evidence(len(told)) if recording.words is not None else 1.0
    extra = _extra(recording, reference) if recording.words else 0.0
    scores = _lowered(_scores(recording, reference, words, both, warp), evidence * (1 - EXTRA_COST * extra))
    contours = _contours(recording, reference, warp)
    return Comparison(words or None, scores, _overall(scores), contours, evidence, extra)


_NO_WORDS: dict[str, Any] = {"words": None, "places": None, "phones": None}


def _is_of(reference: Voice, told: int) -> bool:
    """Tell whether a reference speaks the scripts; words that somebody marked are trusted to."""
    return reference.places is None or reference.evidence(told) >= 1


def _extra(recording: Voice, reference: Voice | None) -> float:
    """Return how much less of the voice is within words than in the reference or, without one, in a plain reading."""
    expected = reference.voice_in_words(recording.unheard) if reference is not None else 0.0
    return max(0.0, 1 - recording.voice_in_words() / (expected or VOICE_IN_WORDS))


def _lowered(scores: dict[str, Score], by: float) -> dict[str, Score]:
    return {name: score._replace(score=by * score.score) for name, score in scores.items()}


def _warp(recording: Voice, reference: Voice | None, both: list[tuple[Spoken, Spoken]]) -> Warp | None:
    """Warp word by word, or all speech when no words are known; None when none of the scripts' words was found."""
    if reference is None or (recording.words is not None and reference.words and not both):
        return None
    return None if recording.words == () else warping.warp(recording, reference, warping.pairs_of(both))


def _placed(voice: Voice | None, told: Sequence[tuple[ScriptWord, Script]]) -> dict[int, Spoken]:
    """Return a voice's words by their index in the scripts; the words of a TextGrid are matched by spelling."""
    words = voice.words if voice is not None and voice.words else ()
    if voice is not None and voice.places is not None:
        return dict(zip(voice.places, words, strict=True))
    return matching.placed(words, [word for word, _ in told])


def _words(
    told: Sequence[tuple[ScriptWord, Script]], recording: Voice, reference: Voice | None, warp: Warp | None
) -> Iterator[Word]:
    ours, theirs = _placed(recording, told), _placed(reference, told)
    for place, (word, script) in enumerate(told):
        spoken, model = ours.get(place), theirs.get(place)
        # When the recording could not be aligned, a reference whose words are known shows where its words are.
        if recording.words is None and warp is not None and model is not None:
            spoken = warp.in_recording(model)
        matched = spoken is not None if _can_be_missed(place, recording, reference, theirs) else None
        ratio = _ratio(recording, spoken)
        similarity = warp.mean_similarity(spoken) if warp is not None and spoken is not None else None
        score = _word_score(ratio, _ratio(reference, model), similarity) if matched is not False else 0.0
        yield Word(word.word, word.letters, script, matched, spoken, model, ratio, similarity, score)


def _can_be_missed(place: int, recording: Voice, reference: Voice | None, theirs: dict[int, Spoken]) -> bool:
    """Tell whether a word counts as missed when absent: it could be listened for, and an aligned reference has it."""
    if recording.words is None or place in recording.unheard:
        return False
    return reference is None or reference.places is None or place in theirs


def _ratio(voice: Voice | None, word: Spoken | None) -> float | None:
    """Return the mean likelihood ratio over a word's phones; each phone counts the same, however long it is."""
    if voice is None or voice.likelihood_ratio is None or word is None:
        return None
    ratios = voice.likelihood_ratio
    phones = [one for one in voice.phones or () if word.start_s <= one.start_s < word.end_s]
    of_phones = [float(ratios[round(one.start_s / FRAME_S) : round(one.end_s / FRAME_S)].mean()) for one in phones]
    known = [ratio for ratio in of_phones if np.isfinite(ratio)]
    return sum(known) / len(known) if known else None


def _word_score(ratio: float | None, of_reference: float | None, similarity: float | None) -> float | None:
    parts = []
    if ratio is not None:
        best = RATIO_OF_GOOD if of_reference is None else min(of_reference, 0.0)
        parts.append(_percent(1 + (ratio - best) / RATIO_AT_ZERO))
    if similarity is not None:
        parts.append(_percent((similarity - SIMILARITY_AT_ZERO) / (1 - SIMILARITY_AT_ZERO)))
    return sum(parts) / len(parts) if parts else None


def _percent(share: float) -> float:
    return 100 * min(1.0, max(0.0, share))


def _scores(
    recording: Voice,
    reference: Voice | None,
    words: list[Word],
    both: list[tuple[Spoken, Spoken]],
    warp: Warp | None,
) -> dict[str, Score]:
    pronunciation = _pronunciation(words, warp)
    if reference is not None and pronunciation is None and _is_voiceless(recording):
        pronunciation = Score(0.0, "no voice in the recording", {})
    if reference is None or pronunciation is None:
        return {"pronunciation": pronunciation} if pronunciation is not None else {}
    share = _share_spoken(words) if words else min(1.0, pronunciation.score / HALF_SURE)
    found = {
        "pronunciation": pronunciation,
        "timing": _timing(both, warp, share),
        "pitch": _pitch(recording, reference, warp, share),
    }
    return {name: score for name, score in found.items() if score is not None}


def _is_voiceless(voice: Voice) -> bool:
    return voice.pitch_hz is None or bool(np.isnan(voice.pitch_hz).all())


def _share_spoken(words: list[Word]) -> float:
    """Return the share of the scripts that was spoken, weighted by word length; 1 when it cannot be determined."""
    judged = [word for word in words if word.matched is not None]
    total = sum(_weight(word) for word in judged)
    return sum(_weight(word) for word in judged if word.matched) / total if total else 1.0


def _weight(word: Word) -> float:
    """Return a word's weight: its seconds in the reference or, without one, an estimate from its letters."""
    return word.reference.end_s - word.reference.start_s if word.reference else 0.06 * word.letters


def _pronunciation(words: list[Word], warp: Warp | None) -> Score | None:
    judged = [(_weight(word), word.score) for word in words if word.score is not None]
    if judged:
        score = sum(weight * score for weight, score in judged) / sum(weight for weight, _ in judged)
        return Score(score, _word_method(words), {})
    similarity = warp.mean_similarity(None) if warp is not None else None
    if similarity is None:
        return None
    method = "cosine of the MFCCs along the warping path, over all speech"
    score = _percent((similarity - SPEECH_SIMILARITY_AT_ZERO) / (1 - SPEECH_SIMILARITY_AT_ZERO))
    return Score(score, method, {"mfcc_similarity": similarity})


def _word_method(words: list[Word]) -> str:
    parts = []
    if any(word.ratio is not None for word in words):
        against = "the reference's" if any(word.reference for word in words) else "a fixed anchor"
        parts.append(f"phone log-likelihood ratio against {against}")
    if any(word.similarity is not None for word in words):
        parts.append("cosine of the MFCCs along the warping path")
    how = "mean of " + " and ".join(parts) if parts else "no word of the scripts was found"
    return f"{how}; words by their lengths, those not spoken count as 0; less for other speech"


def _timing(both: list[tuple[Spoken, Spoken]], warp: Warp | None, share: float) -> Score | None:
    """Compare the intervals between the beginnings of the words; they contain the words' durations and the pauses.

    Half of the score is the tempo, the overall ratio of the intervals. The other half is the rhythm: how much the
    ratios of the single intervals differ from the tempo (durations normalised by the rate of speech: Franco et al.
    2000). Unspoken words lower both.
    """
    intervals = _intervals(both) if both else _intervals_of(warp)
    if not intervals:
        return None
    ours, theirs = (np.array(side) for side in zip(*intervals, strict=True))
    tempo = float(theirs.sum() / ours.sum())
    deviations = np.abs(np.log(ours / theirs) + np.log(tempo))
    deviation = float(np.average(deviations, weights=theirs))
    of_tempo = _percent(1 - abs(np.log(tempo)) / np.log(TEMPO_AT_ZERO))
    of_rhythm = _percent(1 - deviation / RHYTHM_AT_ZERO)
    method = "tempo and rhythm of the words and pauses" if both else "tempo and rhythm along the warping path"
    return Score(share * (of_tempo + of_rhythm) / 2, method, {"tempo_ratio": tempo, "rhythm_deviation": deviation})


def _intervals(both: list[tuple[Spoken, Spoken]]) -> list[tuple[float, float]]:
    ends = [(ours.start_s, theirs.start_s) for ours, theirs in both[1:]] + [(both[-1][0].end_s, both[-1][1].end_s)]
    pairs = [
        (end - ours.start_s, other - theirs.start_s) for (ours, theirs), (end, other) in zip(both, ends, strict=True)
    ]
    return [(one, other) for one, other in pairs if one > 0 and other > 0]


def _intervals_of(warp: Warp | None) -> list[tuple[float, float]]:
    if warp is None or warp.similarity is None:
        return []
    marks = np.arange(warp.reference[0], warp.reference[-1] + 1, INTERVAL_FRAMES)
    at = warp.recording[np.searchsorted(warp.reference, marks)]
    ends = zip(np.diff(at).tolist(), np.diff(marks).tolist(), strict=True)
    return [(max(1.0, one) * FRAME_S, other * FRAME_S) for one, other in ends]


def _contours(recording: Voice, reference: Voice | None, warp: Warp | None) -> Contours | None:
    if recording.pitch_hz is None or np.isnan(recording.pitch_hz).all():
        return None
    ours = _semitones(recording.pitch_hz)
    if reference is None or reference.pitch_hz is None or np.isnan(reference.pitch_hz).all() or warp is None:
        return Contours(ours, None)
    answers = warp.reference_at(len(ours))
    known = (answers >= 0) & (answers < len(reference.pitch_hz))
    theirs = np.where(known, _semitones(reference.pitch_hz)[np.where(known, answers, 0)], np.nan)
    return Contours(ours, theirs)


def _semitones(hz: Floats) -> Floats:
    semitones: Floats = 12 * np.log2(hz / np.nanmedian(hz))
    return semitones


def _pitch(recording: Voice, reference: Voice | None, warp: Warp | None, share: float) -> Score | None:
    """Score the pitch by Lin's concordance of the two contours (1989), over frames that both voice, with a tolerance.

    The concordance is 2 cov / (var + var + difference of means squared). It is 1 for the same contour, less for a
    flatter, wider or shifted one, 0 for an unrelated one and negative for an inverted one. A shift of the whole voice
    does not count, because each contour is relative to its own median.
    """
    contours = _contours(recording, reference, warp)
    if contours is None or contours.reference is None or reference is None or reference.pitch_hz is None:
        return None
    voiced = ~np.isnan(contours.recording) & ~np.isnan(contours.reference)
    if voiced.sum() < MIN_PITCH_FRAMES:
        return None
    ours, theirs = contours.recording[voiced], contours.reference[voiced]
    apart = float(np.mean(ours) - np.mean(theirs))
    covariance = float(np.mean((ours - ours.mean()) * (theirs - theirs.mean())))
    spread = float(ours.var() + theirs.var() + apart**2)
    concordance = (2 * covariance + PITCH_TOLERANCE) / (spread + PITCH_TOLERANCE)
    overlap = voiced.sum() / max(1, int((~np.isnan(contours.reference)).sum()))
    difference = float(np.sqrt(np.mean((ours - theirs) ** 2)))
    details = {"concordance": concordance, "rms_semitones": difference, "voiced_overlap": float(overlap)}
    score = share * min(1.0, overlap / PITCH_OVERLAP) * _percent(concordance)
    return Score(score, "concordance of the contours in semitones around each voice's median", details)


def _overall(scores: dict[str, Score]) -> float | None:
    """Return the weighted mean of the scores that there are, None without any."""
    weight = sum(WEIGHTS[name] for name in scores)
    return sum(WEIGHTS[name] * score.score for name, score in scores.items()) / weight if weight else None
