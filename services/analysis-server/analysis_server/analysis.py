"""One recording's analysis, as a worker process runs it: a file in, the result object out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis_server import comparison, listening, measures, summary
from analysis_server.comparison import Comparison, Contours, Score, Word
from analysis_server.job import Script
from analysis_server.measures import Contour, Tracks
from analysis_server.omissions import Warnings, warning
from analysis_server.voice import Floats, Spoken, Voice

Result = dict[str, Any]


def analyse(path: Path, scripts: Sequence[Script], reference: Voice | None, max_seconds: float) -> Result:
    """Return the result object (see README.md) of the recording at `path`; what cannot be determined is absent.

    `scripts` are in the order in which they are spoken. `reference` is what is known of the actor's voice.
    No number is NaN or infinite. Raises AnalysisError when the recording is not usable.
    """
    voice, loudness_lufs, warnings = listening.hear(path, scripts, max_seconds)
    compared = comparison.compare(voice, reference, scripts)
    return {
        **_known(_measured(voice, loudness_lufs)),
        **_known(_compared(compared)),
        "warnings": [*_absences(voice), *warnings],
    }


def _known(fields: Result) -> Result:
    return {name: value for name, value in fields.items() if value is not None}


def _measured(voice: Voice, loudness_lufs: float | None) -> Result:
    tracks = _tracks(voice)
    return {
        "duration_s": _number(voice.duration_s, 3),
        "loudness_lufs": _number(loudness_lufs, 1),
        "intensity_mean_db": _number(measures.mean_db(tracks.intensity_db), 1),
        "voiced_share": _number(measures.voiced_share(tracks), 3),
        **_rate(tracks, voice.duration_s),
        "pitch_range": _pitch_range(tracks),
        "pitch_contour": contour_json(measures.pitch_contour(tracks), "values_hz"),
        "intensity_contour": contour_json(measures.intensity_contour(tracks), "values_db"),
        "words": _spoken(voice.words, "word"),
        "phones": _spoken(voice.phones, "phone"),
    }


def _tracks(voice: Voice) -> Tracks:
    assert voice.pitch_hz is not None  # noqa: S101 - a voice that was heard has both tracks
    assert voice.level_db is not None  # noqa: S101 - as above
    return Tracks(voice.pitch_hz, voice.level_db)


def _rate(tracks: Tracks, duration_s: float) -> Result:
    count = measures.syllables(tracks)
    measurable = count > 0 and duration_s >= measures.MIN_RATE_S
    return {
        "syllables": count if tracks.voiced().any() else None,
        "speaking_rate_syllables_per_s": _number(count / duration_s, 2) if measurable else None,
    }


def _pitch_range(tracks: Tracks) -> dict[str, float] | None:
    voiced = tracks.pitch_hz[tracks.voiced()]
    if not voiced.size:
        return None
    names = ("min_hz", "p05_hz", "median_hz", "p95_hz", "max_hz")
    values = np.percentile(voiced, (0, 5, 50, 95, 100)).tolist()
    return {name: round(hz, 1) for name, hz in zip(names, values, strict=True)}


def contour_json(contour: Contour, values_name: str) -> Result | None:
    """Return the contour as the result has it: times in seconds, values under their name; None without any value."""
    if np.isnan(contour.values).all():
        return None
    return {"times_s": _rounded(contour.times_s, 3), values_name: _rounded(contour.values, 1)}


def _rounded(values: Floats, digits: int) -> list[float | None]:
    return [_number(value, digits) for value in values.tolist()]


def _spoken(all_spoken: Sequence[Spoken] | None, name: str) -> list[Result] | None:
    """Return words or phones with their times; an empty list becomes None too, and a warning says why."""
    return [{name: one.name, **_when(one)} for one in all_spoken] if all_spoken else None


def _when(one: Spoken) -> Result:
    return {"start_s": _number(one.start_s, 3), "end_s": _number(one.end_s, 3)}


def _compared(compared: Comparison) -> Result:
    return {
        "overall_score": _number(compared.overall, 1),
        "scores": {name: _score(score) for name, score in compared.scores.items()} or None,
        "word_analysis": [_word(word) for word in compared.words] if compared.words else None,
        "pitch": _pitch(compared.contours) if compared.contours else None,
        "summary": summary.summarise(compared),
    }


def _score(score: Score) -> Result:
    details = {name: _number(value, 3) for name, value in score.details.items()}
    return {"score": _number(score.score, 1), "method": score.method, **details}


def _word(word: Word) -> Result:
    fields = {
        "word": word.word,
        "script_id": word.script.script_id,
        "script": word.script.script,
        "reference": _when(word.reference) if word.reference else None,
        "recording": _when(word.recording) if word.recording else None,
        "matched": word.matched,
        "likelihood_ratio": _number(word.ratio, 2),
        "mfcc_similarity": _number(word.similarity, 3),
        "score": _number(word.score, 1),
    }
    return _known(fields)


def _pitch(contours: Contours) -> Result:
    recording = measures.semitone_contour(contours.recording)
    found = {"times_s": _rounded(recording.times_s, 3), "recording_semitones": _rounded(recording.values, 2)}
    if contours.reference is not None:
        found["reference_semitones"] = _rounded(measures.semitone_contour(contours.reference).values, 2)
    return found


def _absences(voice: Voice) -> Warnings:
    """Return warnings that say which measures are absent, and why."""
    warnings = []
    if voice.duration_s < measures.MIN_RATE_S:
        text = "Under 1 s there is no speaking rate, under 0.4 s no loudness, and under 0.13 s no intensity."
        warnings.append(warning("recording_too_short", text))
    if not _tracks(voice).voiced().any():
        warnings.append(warning("no_voice_found", "No voiced sound was found, so there is no pitch and no rate."))
    return warnings


def _number(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and np.isfinite(value) else None
