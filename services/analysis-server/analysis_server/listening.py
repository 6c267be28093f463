"""Listens to one voice: turns a recording's file into a Voice. Runs in a worker process."""

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
from analysis_server.omissions import Warnings, warning
from analysis_server.voice import FRAME_S, Floats, Spoken, Voice

MAX_SECONDS = alignment.MAX_SECONDS
"""Of a longer recording only pitch and level are measured."""

_FRAME = int(SAMPLE_RATE * FRAME_S)
_MAX_SAMPLES = int(MAX_SECONDS * SAMPLE_RATE)
_LEAST_RATIO = -7.5  # for a word; espeak-ng's voices score 0 to -7 on the words that they say, -8 to -20 on others
_LONGEST_PHONE_S = 0.35  # mean over a word's phones; longer than the most drawn-out "no" that an actor says
_SOME_OF_TEXT, _MOST_OF_TEXT = 0.4, 0.6
_NEARLY_ALL = 0.9
_MIN_FRAMES = 10  # nobody says a word in fewer, and the decoder can hardly judge fewer
_LEFT_OVER = 5  # frames
_SLOWEST = 0.18  # seconds per letter, when words are said one by one
_LEAST_FRAMES = 3  # of a phone: its model has three states


class Heard(NamedTuple):
    """A voice, the loudness of its recording in LUFS, and warnings about what could not be heard."""

    voice: Voice
    loudness_lufs: float | None
    warnings: Warnings


def listen(path: Path, scripts: Sequence[Script], max_seconds: float) -> tuple[Voice, Warnings]:
    """Return what is heard in the recording at `path`, and warnings about what could not be heard.

    Raises AnalysisError when the recording is not usable.
    """
    voice, _, warnings = hear(path, scripts, max_seconds)
    return voice, warnings


def hear(path: Path, scripts: Sequence[Script], max_seconds: float) -> Heard:
    """Return what is heard in the recording at `path`; `words` is empty when the scripts were not found in it.

    Raises AnalysisError when the recording is not usable.
    """
    recording, kept = AudioFile(path, max_seconds), _Kept()
    tracks = measures.track(kept.passing(recording.blocks()))
    voice = Voice(recording.duration_s, pitch_hz=tracks.pitch_hz, level_db=tracks.intensity_db)
    lost = _lost(recording.damaged_packets)
    if kept.is_too_long:
        text = f"Only recordings of up to {MAX_SECONDS:g} s are aligned and compared sound by sound."
        return Heard(voice, recording.loudness_lufs, [*lost, warning("recording_too_long_to_align", text)])
    samples = kept.samples()
    voice = replace(voice, mfcc=measures.mfcc(samples, len(tracks.pitch_hz)))
    text = "\n".join(one.script for one in scripts)  # no word goes on after the end of a line
    if not text:
        return Heard(voice, recording.loudness_lufs, lost)
    aligned, warnings = _aligned(voice, samples, text, tracks)
    return Heard(aligned, recording.loudness_lufs, [*lost, *warnings])


def _lost(packets: int) -> Warnings:
    if not packets:
        return []
    lost = "One piece" if packets == 1 else f"{packets} pieces"
    return [warning("audio_partly_damaged", f"{lost} of the sound could not be decoded, and had to be left out.")]


class _Kept:
    """Keeps a recording's samples as they pass, unless they are more than can be aligned."""

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
    except NotAlignedError as reason:
        return voice, [warning(reason.code, reason.text)]
    heard = replace(voice, **_words(samples, text, tracks))
    unknown = [text.words[at].word for at in sorted(text.unknown)]
    warnings = [_unknown_words(unknown)] if unknown else []
    if not heard.words:
        return heard, [*warnings, warning("alignment_failed", "None of the script was found in the recording.")]
    if heard.evidence(len(text.words)) < 1:
        doubt = warning("script_does_not_match", "The recording hardly seems to be of this script.")
        return heard, [*warnings, doubt]
    return heard, warnings


def _unknown_words(words: list[str]) -> dict[str, str]:
    named = list(dict.fromkeys(words))
    listed = ", ".join(named[:10]) + (", …" if len(named) > 10 else "")  # noqa: PLR2004 - enough to act on
    return warning("words_not_in_dictionary", f"Not known how to say in English, so left out of the words: {listed}")


def _words(samples: Samples, text: Text, tracks: Tracks) -> dict[str, Any]:
    """Return the fields of a Voice about words: `words`, `places`, `unheard`, `phones` and `likelihood_ratio`."""
    frames = measures.speech_frames(tracks)
    frames = frames[frames < len(samples) // _FRAME]
    found = _believed(_pcm(samples, frames), text) if len(frames) >= _MIN_FRAMES else []
    believed = [(place, [_uncut(phone, frames) for phone in phones]) for place, phones in found]
    words = [Spoken(text.words[place].word, _start(phones[0]), _end(phones[-1])) for place, phones in believed]
    phones = [phone for _, of_word in believed for phone in of_word]
    return {
        "words": tuple(words),
        "places": tuple(place for place, _ in believed),
        "unheard": text.unknown,
        "phones": tuple(Spoken(phone.name, _start(phone), _end(phone)) for phone in phones),
        "likelihood_ratio": _ratios(phones, len(tracks.pitch_hz)),
    }


def _believed(pcm: bytes, text: Text) -> list[tuple[int, list[JudgedPhone]]]:
    """Return the words that were found and fit their sound, each as its index and its phones.

    The speaker may have said more than the text before and after it. But sound that seems to be something else may be
    words of the text, said unusually. So when some words are missing and sound is left over, the text is aligned again,
    this time with all of the sound. The second alignment is believed only when it fits most of the text, and more of it
    than the first: other speech would not. It is not tried when nobody would speak the text so slowly.
    """
    free, known = likelihood.free_scores(pcm), len(text.known)
    first = _tried(pcm, text, free, 0, with_more=True)
    left_over = len(free) - sum(phones[-1].end - phones[0].start for _, phones in first)
    is_settled = not _SOME_OF_TEXT * known <= len(first) < _NEARLY_ALL * known or left_over < _LEFT_OVER
    if is_settled or len(free) * FRAME_S > _SLOWEST * sum(text.words[at].letters for at, _ in text.known):
        return first
    enough = max(len(first), int(_MOST_OF_TEXT * known))
    second = _tried(pcm, text, free, enough, with_more=False)
    return second if len(second) > enough else first


def _tried(
    pcm: bytes, text: Text, free: Floats, enough: int, *, with_more: bool
) -> list[tuple[int, list[JudgedPhone]]]:
    """Return the credible words; none when no path through the text has more than `enough` words."""
    try:
        places, found = alignment.find(pcm, text, with_more=with_more)
        if sum(place is not None for place in places) <= enough:
            return []
        pieces = zip(places, likelihood.judge(pcm, found, free), strict=True)
        return [(place, phones) for place, phones in pieces if place is not None and _is_credible(phones)]
    except NotAlignedError:
        return []


def _pcm(samples: Samples, frames: NDArray[np.int_]) -> bytes:
    """Return the samples of these frames, joined, in the decoder's 16-bit format."""
    framed = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)[frames]
    pcm: bytes = (np.clip(framed, -1, 1) * 32767).astype("<i2").tobytes()
    return pcm


def _uncut(phone: JudgedPhone, frames: NDArray[np.int_]) -> JudgedPhone:
    """Move a phone to its place in the recording; when a pause was cut out of it, only its longest part remains."""
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
    """Return the mean over the phones or over their frames, whichever is worse: no short phone makes up for a long one.

    Phones of the decoder's least length count only in the mean over frames: at their edges there is room for anything.
    """
    frames = [phone.end - phone.start for phone in phones]
    of_frames = sum(phone.ratio * count for phone, count in zip(phones, frames, strict=True)) / sum(frames)
    lasting = [phone.ratio for phone, count in zip(phones, frames, strict=True) if count > _LEAST_FRAMES]
    return min(of_frames, sum(lasting) / len(lasting)) if lasting else of_frames


def _ratios(phones: Iterable[JudgedPhone], frames: int) -> Floats:
    ratios = np.full(frames, np.nan)
    for phone in phones:
        ratios[phone.start : phone.end] = phone.ratio
    return ratios
