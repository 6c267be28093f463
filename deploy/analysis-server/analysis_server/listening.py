"""Hearing one voice: a recording's file in, all that can be known of it out; a worker's task."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis_server import alignment, likelihood, measures
from analysis_server.alignment import NotAlignedError, Text
from analysis_server.audio import SAMPLE_RATE, AudioFile, Samples
from analysis_server.job import Script
from analysis_server.likelihood import JudgedPhone
from analysis_server.measures import Tracks
from analysis_server.voice import FRAME_S, Floats, Spoken, Voice

MAX_SECONDS = alignment.MAX_SECONDS
"""Of a longer recording only pitch and level are known."""

Warnings = list[dict[str, str]]

_FRAME = int(SAMPLE_RATE * FRAME_S)
_MAX_SAMPLES = int(MAX_SECONDS * SAMPLE_RATE)
_LEAST_RATIO = -7.5  # of a word: espeak-ng's voices say their words at 0 to -7, and other words come out at -8 to -20
_LONGEST_PHONE_S = 0.35  # on average over a word: drawn out beyond any "no" that actors say
_MIN_VOICE_IN_WORDS = 0.5
_MOST_OF_TEXT = 0.6
_NEARLY_ALL = 0.9
_MIN_FRAMES = 10  # nobody says a word in less, and the decoder cannot judge much less
_MIN_WORDS = 2  # of a text with more than one: a single one fits any sound that is short enough


class Heard(NamedTuple):
    """A voice, the loudness of its recording, and (code, text) of what could not be heard."""

    voice: Voice
    loudness_lufs: float | None
    warnings: Warnings


def listen(path: Path, scripts: Sequence[Script], max_seconds: float) -> tuple[Voice, Warnings]:
    """Return what is heard in the recording at `path`, and warnings of what is not.

    Raises AnalysisError for what is no usable recording.
    """
    voice, _, warnings = hear(path, scripts, max_seconds)
    return voice, warnings


def hear(path: Path, scripts: Sequence[Script], max_seconds: float) -> Heard:
    """Return what is heard in the recording at `path`; `words` is empty when the scripts were not found in it.

    Raises AnalysisError for what is no usable recording.
    """
    recording, kept = AudioFile(path, max_seconds), _Kept()
    tracks = measures.track(kept.passing(recording.blocks()))
    voice = Voice(recording.duration_s, pitch_hz=tracks.pitch_hz, level_db=tracks.intensity_db)
    if kept.is_too_long:
        text = f"Only recordings of up to {MAX_SECONDS:g} s are aligned and compared sound by sound."
        return Heard(voice, recording.loudness_lufs, [warning("recording_too_long_to_align", text)])
    samples = kept.samples()
    voice = replace(voice, mfcc=measures.mfcc(samples, len(tracks.pitch_hz)))
    text = " ".join(one.script for one in scripts)
    if not text:
        return Heard(voice, recording.loudness_lufs, [])
    aligned, warnings = _aligned(voice, samples, text, tracks)
    return Heard(aligned, recording.loudness_lufs, warnings)


def warning(code: str, text: str) -> dict[str, str]:
    """Return what was left out and why, as the result has it."""
    return {"code": code, "text": text}


class _Kept:
    """A recording's samples as they pass: as many as can be aligned."""

    def __init__(self) -> None:
        self._blocks: list[Samples] = []
        self._count = 0

    @property
    def is_too_long(self) -> bool:
        return self._count > _MAX_SAMPLES

    def passing(self, blocks: Iterable[Samples]) -> Iterator[Samples]:
        for block in blocks:
            self._count += len(block)
            if self.is_too_long:
                self._blocks.clear()
            else:
                self._blocks.append(block)
            yield block

    def samples(self) -> Samples:
        return np.concatenate(self._blocks) if self._blocks else np.empty(0, np.float32)


def _aligned(voice: Voice, samples: Samples, script: str, tracks: Tracks) -> tuple[Voice, Warnings]:
    try:
        text = alignment.read(script)
        heard = _words(samples, text, tracks)
    except NotAlignedError as reason:
        known: dict[str, Any] = {"words": (), "phones": (), "places": ()} if reason.code in _NOTHING_FOUND else {}
        return replace(voice, **known), [warning(reason.code, reason.text)]
    unknown = [text.words[at] for at in sorted(text.unknown)]
    return replace(voice, **heard), [_unknown_words(unknown)] if unknown else []


_NOTHING_FOUND = {"alignment_failed", "script_does_not_match"}


def _unknown_words(words: list[str]) -> dict[str, str]:
    named = list(dict.fromkeys(words))
    listed = ", ".join(named[:10]) + (", …" if len(named) > 10 else "")  # noqa: PLR2004 - enough to act on
    return warning("words_not_in_dictionary", f"Not in the English dictionary, so left out of the words: {listed}")


def _words(samples: Samples, text: Text, tracks: Tracks) -> dict[str, Any]:
    """Return what is known of the words: `words`, `places`, `phones` and `likelihood_ratio` of a Voice."""
    frames = measures.speech_frames(tracks)
    frames = frames[frames < len(samples) // _FRAME]
    if len(frames) < _MIN_FRAMES:
        raise NotAlignedError("alignment_failed", "The script could not be found in the recording.")
    pcm = _pcm(samples, frames)
    believed = [(place, [_uncut(phone, frames) for phone in phones]) for place, phones in _believed(pcm, text)]
    words = [Spoken(text.words[place], _start(phones[0]), _end(phones[-1])) for place, phones in believed]
    if len(words) < min(_MIN_WORDS, len(text.known)) or _voice_in(words, tracks) < _MIN_VOICE_IN_WORDS:
        raise NotAlignedError("script_does_not_match", "The recording does not seem to be of this script.")
    phones = [phone for _, of_word in believed for phone in of_word]
    return {
        "words": tuple(words),
        "places": tuple(place for place, _ in believed),
        "unheard": text.unknown,
        "phones": tuple(Spoken(phone.name, _start(phone), _end(phone)) for phone in phones),
        "likelihood_ratio": _ratios(phones, len(tracks.pitch_hz)),
    }


def _believed(pcm: bytes, text: Text) -> list[tuple[int, list[JudgedPhone]]]:
    """Return the words that were found and fit their sound.

    Nearly all words are looked for without any pauses, since long stretches of words that are said unusually pass for
    pauses. Where that leaves words out, other things may have been said, which pauses take up: it is then believed only
    when it fits most of the text, and more of it, for other speech would not.
    """
    free = likelihood.free_scores(pcm)
    known = len(text.known)
    plain = _tried(pcm, text, free, with_pauses=False)
    if len(plain) >= _NEARLY_ALL * known:
        return plain
    paused = _tried(pcm, text, free, with_pauses=True)
    return plain if len(plain) > max(len(paused), _MOST_OF_TEXT * known) else paused


def _tried(pcm: bytes, text: Text, free: Floats, *, with_pauses: bool) -> list[tuple[int, list[JudgedPhone]]]:
    """Return the credible words, none when there is no path through the text."""
    try:
        places, found = alignment.find(pcm, text, with_pauses=with_pauses)
        pieces = zip(places, likelihood.judge(pcm, found, free), strict=True)
        return [(place, phones) for place, phones in pieces if place is not None and _is_credible(phones)]
    except NotAlignedError:
        return []


def _pcm(samples: Samples, frames: NDArray[np.int_]) -> bytes:
    """Return these frames' samples without what lies between them, as the decoder takes them."""
    framed = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)[frames]
    pcm: bytes = (np.clip(framed, -1, 1) * 32767).astype("<i2").tobytes()
    return pcm


def _uncut(phone: JudgedPhone, frames: NDArray[np.int_]) -> JudgedPhone:
    """Return a phone at its place in the recording; where a pause was cut out of it, its longer side is the phone."""
    own = frames[phone.start : phone.end]
    sides = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
    longest = max(sides, key=len)
    return phone._replace(start=int(longest[0]), end=int(longest[-1]) + 1)


def _start(phone: JudgedPhone) -> float:
    return round(phone.start * FRAME_S, 2)


def _end(phone: JudgedPhone) -> float:
    return round(phone.end * FRAME_S, 2)


def _is_credible(phones: Sequence[JudgedPhone]) -> bool:
    seconds = (phones[-1].end - phones[0].start) * FRAME_S
    return _ratio(phones) >= _LEAST_RATIO and seconds <= _LONGEST_PHONE_S * len(phones)


def _ratio(phones: Sequence[JudgedPhone]) -> float:
    """Return the mean over the phones or over their frames, whichever is worse, so that no short one excuses a long."""
    frames = [phone.end - phone.start for phone in phones]
    of_frames = sum(phone.ratio * count for phone, count in zip(phones, frames, strict=True)) / sum(frames)
    return min(of_frames, sum(phone.ratio for phone in phones) / len(phones))


def _voice_in(words: Sequence[Spoken], tracks: Tracks) -> float:
    """Return the share of the voiced frames that lie within a word, 0 when there is no voice at all."""
    voiced = tracks.voiced()
    within = np.zeros(len(voiced), dtype=bool)
    for word in words:
        within[round(word.start_s / FRAME_S) : round(word.end_s / FRAME_S)] = True
    return float((voiced & within).sum() / voiced.sum()) if voiced.any() else 0.0


def _ratios(phones: Iterable[JudgedPhone], frames: int) -> Floats:
    ratios = np.full(frames, np.nan)
    for phone in phones:
        ratios[phone.start : phone.end] = phone.ratio
    return ratios
