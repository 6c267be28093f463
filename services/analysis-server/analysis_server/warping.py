"""Finds the moment of the reference that matches each moment of the recording: dynamic time warping of MFCCs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from dtaidistance import dtw_ndim  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from analysis_server import measures
from analysis_server.measures import Tracks
from analysis_server.voice import FRAME_S, Floats, Spoken, Voice

_MAX_FRAMES = 3000
"""Warping needs memory for all pairs of frames: 72 MB for this many. Longer stretches use only each nth frame."""

Frames = NDArray[np.int_]


class Pair(NamedTuple):
    """A stretch of the recording and the matching stretch of the reference, in frames, ends excluded."""

    recording: slice
    reference: slice


@dataclass(frozen=True, eq=False)
class Warp:
    """Frames of the recording and of the reference, pair by pair in ascending order, and how alike each pair sounds.

    `similarity` is the cosine of the angle between the MFCCs of the pair, each minus its voice's mean over all speech
    (cepstral mean subtraction): 1 is the same, 0 nothing in common. It is None when a voice has no MFCCs; the pairs are
    then evenly spaced.
    """

    recording: Frames
    reference: Frames
    similarity: Floats | None

    def mean_similarity(self, within: Spoken | None, *, of_reference: bool = False) -> float | None:
        """Return the mean over the pairs within a word (of the recording, or of the reference), None without any."""
        if self.similarity is None:
            return None
        inside = self._inside(within, of_reference=of_reference)
        return float(self.similarity[inside].mean()) if inside.any() else None

    def in_recording(self, word: Spoken) -> Spoken | None:
        """Return where in the recording a word of the reference is."""
        inside = self._inside(word, of_reference=True)
        if not inside.any():
            return None
        found = self.recording[inside]
        return Spoken(word.name, round(found[0] * FRAME_S, 2), round((found[-1] + 1) * FRAME_S, 2))

    def reference_at(self, frames: int) -> Frames:
        """Return the reference's frame for each of the recording's first `frames` frames, -1 where there is none."""
        answers = np.full(frames, -1)
        inside = self.recording < frames
        answers[self.recording[inside]] = self.reference[inside]
        return answers

    def _inside(self, word: Spoken | None, *, of_reference: bool) -> NDArray[np.bool_]:
        frames = self.reference if of_reference else self.recording
        if word is None:
            return np.ones(len(frames), dtype=bool)
        return (frames >= round(word.start_s / FRAME_S)) & (frames < round(word.end_s / FRAME_S))


def pairs_of(words: Iterable[tuple[Spoken, Spoken]]) -> list[Pair]:
    """Return the stretches of words that both voices spoke."""
    return [Pair(_frames(recorded), _frames(spoken)) for recorded, spoken in words]


def warp(recording: Voice, reference: Voice, pairs: list[Pair]) -> Warp | None:
    """Warp the reference onto the recording within each pair of words; without pairs, all speech onto all speech.

    Classic dynamic time warping (Sakoe & Chiba 1978) with Euclidean distances, by dtaidistance. Returns None when there
    is neither a pair nor speech to warp.
    """
    whole = pairs or _whole(recording, reference)
    if not whole:
        return None
    if recording.mfcc is None or reference.mfcc is None:
        at = np.concatenate([_range(one.recording) for one in whole])
        return Warp(at, np.concatenate([_evenly(one) for one in whole]), None)
    ours, theirs = _normalised(recording), _normalised(reference)
    found = list(_warped(ours, theirs, whole))
    if not found:
        return None
    at, other = (np.concatenate(side) for side in zip(*found, strict=True))
    return Warp(at, other, _cosines(ours[at], theirs[other]))


def _frames(word: Spoken) -> slice:
    return slice(round(word.start_s / FRAME_S), max(round(word.start_s / FRAME_S) + 1, round(word.end_s / FRAME_S)))


def _whole(recording: Voice, reference: Voice) -> list[Pair]:
    ours, theirs = speech(recording), speech(reference)
    if not len(ours) or not len(theirs):
        return []
    return [Pair(slice(int(ours[0]), int(ours[-1]) + 1), slice(int(theirs[0]), int(theirs[-1]) + 1))]


def speech(voice: Voice) -> Frames:
    """Return the frames in which a voice speaks, as far as it is known."""
    if voice.pitch_hz is None:
        return np.empty(0, dtype=int)
    if voice.level_db is None or not np.isfinite(voice.level_db).any():
        return np.flatnonzero(~np.isnan(voice.pitch_hz))
    return measures.speech_frames(Tracks(voice.pitch_hz, voice.level_db))


def _range(stretch: slice) -> Frames:
    return np.arange(stretch.start, stretch.stop)


def _evenly(pair: Pair) -> Frames:
    length = pair.recording.stop - pair.recording.start
    return np.linspace(pair.reference.start, pair.reference.stop - 1, length).round().astype(int)


def _normalised(voice: Voice) -> Floats:
    assert voice.mfcc is not None  # noqa: S101 - checked by the caller
    frames = speech(voice)
    mean = voice.mfcc[frames[frames < len(voice.mfcc)]].mean(axis=0) if len(frames) else 0.0
    return np.ascontiguousarray(voice.mfcc - mean)


def _warped(ours: Floats, theirs: Floats, pairs: Iterable[Pair]) -> Iterator[tuple[Frames, Frames]]:
    for pair in pairs:
        at, other = _range(pair.recording), _range(pair.reference)
        at, other = at[at < len(ours)], other[other < len(theirs)]
        step = -(-max(len(at), len(other)) // _MAX_FRAMES)
        if step:
            at, other = at[::step], other[::step]
        if len(at) and len(other):
            path = np.array(dtw_ndim.warping_path(ours[at], theirs[other], use_c=True))
            yield at[path[:, 0]], other[path[:, 1]]


def _cosines(ours: Floats, theirs: Floats) -> Floats:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines: Floats = (ours * theirs).sum(axis=1) / np.maximum(lengths, 1e-9)
    return cosines
