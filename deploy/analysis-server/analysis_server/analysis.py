"""One recording's analysis, as a worker process runs it: a file in, the result object out."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis_server import alignment, measures
from analysis_server.alignment import Alignment, NotAlignedError, Spoken
from analysis_server.audio import SAMPLE_RATE, AudioFile, Samples
from analysis_server.job import Script
from analysis_server.measures import Contour, Tracks
from analysis_server.voice import Voice

Result = dict[str, Any]
Warnings = list[dict[str, str]]

_ALIGNABLE_BYTES = int(alignment.MAX_SECONDS * SAMPLE_RATE) * 2
_MIN_VOICE_IN_WORDS = 0.5


def analyse(
    path: Path, scripts: Sequence[Script], reference: Voice | None, max_seconds: float, time_limit_s: int
) -> Result:
    """Return the result object (see README.md) of the recording at `path`; no number in it is NaN or infinite.

    `scripts` are in the order in which they are spoken; the reference is the actor's voice, as far as it is known.

    Raises AnalysisError for what is no usable recording. Past the time limit SIGALRM ends the whole process, for a
    decoder or an aligner that hangs in native code hears no exception.
    """
    assert reference is None or reference.duration_s >= 0  # noqa: S101 - the comparison comes next
    signal.alarm(time_limit_s)
    try:
        return _analyse(path, " ".join(one.script for one in scripts) or None, max_seconds)
    finally:
        signal.alarm(0)


def _analyse(path: Path, script: str | None, max_seconds: float) -> Result:
    recording, pcm = AudioFile(path, max_seconds), bytearray()
    tracks = measures.track(_copied(recording.blocks(), pcm) if script else recording.blocks())
    times, warnings = _times(bytes(pcm), script, tracks) if script else (_NO_TIMES, [])
    return {
        "duration_s": _number(recording.duration_s, 3),
        "loudness_lufs": _number(recording.loudness_lufs, 1),
        "intensity_mean_db": _number(measures.mean_db(tracks.intensity_db), 1),
        "voiced_share": _number(measures.voiced_share(tracks), 3),
        **_rate(tracks, recording.duration_s),
        "pitch": _pitch(tracks),
        "pitch_contour": _contour(measures.pitch_contour(tracks), "values_hz"),
        "intensity_contour": _contour(measures.intensity_contour(tracks), "values_db"),
        **times,
        "warnings": [*_absences(tracks, recording.duration_s), *warnings],
    }


def _copied(blocks: Iterable[Samples], pcm: bytearray) -> Iterator[Samples]:
    """Pass the blocks on, keeping 16-bit samples for the aligner: just over its limit at most, which it then sees."""
    for block in blocks:
        if len(pcm) <= _ALIGNABLE_BYTES:
            pcm += (np.clip(block, -1, 1) * 32767).astype("<i2").tobytes()
        yield block


_NO_TIMES: Result = {"words": None, "phones": None}


def _times(pcm: bytes, script: str, tracks: Tracks) -> tuple[Result, Warnings]:
    try:
        aligned = _aligned(pcm, script, tracks)
    except NotAlignedError as reason:
        return _NO_TIMES, [_warning(reason.code, reason.text)]
    words = [{"word": word.name, "start_s": word.start_s, "end_s": word.end_s} for word in aligned.words]
    phones = [{"phone": phone.name, "start_s": phone.start_s, "end_s": phone.end_s} for phone in aligned.phones]
    return {"words": words, "phones": phones}, []


def _aligned(pcm: bytes, script: str, tracks: Tracks) -> Alignment:
    aligned = alignment.align(pcm, script)
    if _voice_in(aligned.words, tracks) < _MIN_VOICE_IN_WORDS:
        raise NotAlignedError("script_does_not_match", "The recording does not seem to be of this script.")
    return aligned


def _voice_in(words: list[Spoken], tracks: Tracks) -> float:
    """Return the share of the voiced frames that lie within a word, 0 when there is no voice at all."""
    voiced = tracks.voiced()
    within = np.zeros(len(voiced), dtype=bool)
    for word in words:
        within[round(word.start_s / measures.FRAME_S) : round(word.end_s / measures.FRAME_S)] = True
    return float((voiced & within).sum() / voiced.sum()) if voiced.any() else 0.0


def _rate(tracks: Tracks, duration_s: float) -> Result:
    count = measures.syllables(tracks)
    measurable = count > 0 and duration_s >= measures.MIN_RATE_S
    return {
        "syllables": count if tracks.voiced().any() else None,
        "speaking_rate_syllables_per_s": _number(count / duration_s, 2) if measurable else None,
    }


def _pitch(tracks: Tracks) -> dict[str, float] | None:
    voiced = tracks.pitch_hz[tracks.voiced()]
    if not voiced.size:
        return None
    names = ("min_hz", "p05_hz", "median_hz", "p95_hz", "max_hz")
    values = np.percentile(voiced, (0, 5, 50, 95, 100)).tolist()
    return {name: round(hz, 1) for name, hz in zip(names, values, strict=True)}


def _contour(contour: Contour, values_name: str) -> Result | None:
    if np.isnan(contour.values).all():
        return None
    return {
        "times_s": [round(time, 3) for time in contour.times_s.tolist()],
        values_name: [_number(value, 1) for value in contour.values.tolist()],
    }


def _absences(tracks: Tracks, duration_s: float) -> Warnings:
    """Say what was not measured and why, so that a null is no riddle."""
    warnings = []
    if duration_s < measures.MIN_RATE_S:
        text = "Under 1 s there is no speaking rate, under 0.4 s no loudness, and under 0.13 s no intensity."
        warnings.append(_warning("recording_too_short", text))
    if not tracks.voiced().any():
        warnings.append(_warning("no_voice_found", "No voiced sound was found, so there is no pitch and no rate."))
    return warnings


def _warning(code: str, text: str) -> dict[str, str]:
    return {"code": code, "text": text}


def _number(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and np.isfinite(value) else None
