"""Measures a voice: Praat's pitch and intensity of its samples, and what follows from them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import parselmouth
from numpy.typing import NDArray

from analysis_server.audio import SAMPLE_RATE, Samples
from analysis_server.voice import FRAME_S, Floats

MAX_POINTS = 2000
"""No contour has more points than this."""

PITCH_FLOOR_HZ, PITCH_CEILING_HZ = 75.0, 600.0  # Praat's standard range for speech
INTENSITY_FLOOR_HZ = 50.0  # de Jong & Wempe's smoothing: windows of 64 ms, so single glottal pulses leave no ripple
PITCH_SILENCE_DB = 30.0  # Praat's silence threshold (0.03 of the peak), applied to the whole recording
SYLLABLE_SILENCE_DB = 25.0  # de Jong & Wempe 2009
SYLLABLE_DIP_DB = 2.0  # de Jong & Wempe 2009
MIN_RATE_S = 1.0  # a shorter recording has one or two syllables by chance, so its rate means nothing
MIN_PITCH_S = 0.05  # Praat needs three periods of the pitch floor
MIN_INTENSITY_S = 0.13  # Praat needs 6.4 periods of the intensity floor

SPEECH_RANGE_DB = 35.0  # below the loud level; the weakest fricatives of careful speech are some 30 dB below its vowels
SPEECH_LEAST_RANGE_DB = 15.0  # at least this, however noisy the pauses are
SPEECH_OVER_NOISE_DB = 6.0  # above the noise: the quietest twentieth of a recording that has pauses
SPEECH_MARGIN = 3  # frames: plosives begin quietly
MFCC_COUNT, MFCC_WINDOW_S = 12, 0.015  # Praat's standard

_DIGITAL_SILENCE_DB = -200.0  # Praat gives a window of zeros -300 dB; the quietest 24-bit sound is near -50
_NO_LEVEL_DB = -1000.0

_FRAME = int(SAMPLE_RATE * FRAME_S)
_CORE = 60 * SAMPLE_RATE  # a window's own samples, a whole number of frames
_MARGIN = SAMPLE_RATE // 2  # what Praat also gets on either side, so that the seams between windows do not show


@dataclass(frozen=True)
class Tracks:
    """Praat's frames over a whole recording, one per FRAME_S, the first centred on FRAME_S / 2; NaN means "none"."""

    pitch_hz: Floats
    intensity_db: Floats

    def voiced(self) -> NDArray[np.bool_]:
        """Return for each frame whether it has a pitch."""
        return ~np.isnan(self.pitch_hz)


class Contour(NamedTuple):
    """A track of at most MAX_POINTS points: the time of each in s, and its value or NaN."""

    times_s: Floats
    values: Floats


class Window(NamedTuple):
    """Samples with their margins, where they begin in the recording, and the times of the window's own frames."""

    samples: Samples
    start_s: float
    frame_times_s: Floats


def track(blocks: Iterable[Samples]) -> Tracks:
    """Measure pitch and intensity of mono samples at SAMPLE_RATE, a minute at a time, so memory stays small.

    Pitch: Praat's `Sound: To Pitch (ac)` (Boersma 1993), 75-600 Hz; intensity: `Sound: To Intensity`, floor 50 Hz,
    in dB re 2e-5 with full scale taken as 1 Pa (uncalibrated: only differences mean something).
    """
    pitch, intensity = [np.empty(0)], [np.empty(0)]
    for window in windows(blocks):
        sound = parselmouth.Sound(window.samples.astype(np.float64), SAMPLE_RATE, start_time=window.start_s)
        pitch.append(_pitch(sound, window.frame_times_s))
        intensity.append(_intensity(sound, window.frame_times_s))
    return _gated(np.concatenate(pitch), np.concatenate(intensity))


def voiced_share(tracks: Tracks) -> float | None:
    """Return the share of all frames that have a pitch, 0 to 1; None under 50 ms, where pitch cannot be measured."""
    return float(tracks.voiced().mean()) if tracks.pitch_hz.size * FRAME_S >= MIN_PITCH_S else None


def syllables(tracks: Tracks) -> int:
    """Count syllable nuclei, after de Jong & Wempe 2009 (Behavior Research Methods 41, 385-390).

    A nucleus is an intensity peak that stands at least 2 dB above the dips on both sides, lies no more than 25 dB
    below the recording's loud level (its 99th percentile), and is voiced.
    """
    level = tracks.intensity_db
    threshold = _loud_level(level) - SYLLABLE_SILENCE_DB
    voiced = tracks.voiced()
    return sum(1 for peak in _peaks(level, SYLLABLE_DIP_DB) if level[peak] >= threshold and voiced[peak])


def pitch_contour(tracks: Tracks) -> Contour:
    """Return the pitch in Hz: the median of each point's frames, NaN where fewer than half of them are voiced."""
    return _contour(tracks.pitch_hz, _median_of_most)


def semitone_contour(semitones: Floats) -> Contour:
    """Return the contour of a pitch in semitones, made as `pitch_contour` makes one in Hz."""
    return _contour(semitones, _median_of_most)


def intensity_contour(tracks: Tracks) -> Contour:
    """Return the intensity in dB: the mean power of each point's frames, NaN in digital silence and at the edges."""
    return _contour(tracks.intensity_db, mean_db)


def speech_frames(tracks: Tracks) -> NDArray[np.int_]:
    """Return the indexes of the frames that are not pauses: near the recording's loud level, with a margin of 30 ms."""
    level = np.nan_to_num(tracks.intensity_db, nan=_NO_LEVEL_DB)
    if not level.size:
        return np.empty(0, dtype=int)
    loud, noise = _loud_level(tracks.intensity_db), np.percentile(level, 5)
    least = max(loud - SPEECH_RANGE_DB, min(noise + SPEECH_OVER_NOISE_DB, loud - SPEECH_LEAST_RANGE_DB))
    near: NDArray[np.int_] = np.flatnonzero(np.convolve(level > least, np.ones(2 * SPEECH_MARGIN + 1), "same") > 0)
    return near[near < level.size]


def mfcc(samples: Samples, frames: int) -> Floats | None:
    """Return MFCC_COUNT coefficients for each of `frames` frames, without the 0th (the level); None if too short.

    Praat's `Sound: To MFCC` (Davis & Mermelstein 1980), windows of 15 ms, filters 100 mel apart.
    """
    if samples.size < 3 * MFCC_WINDOW_S * SAMPLE_RATE or not frames:
        return None
    sound = parselmouth.Sound(samples.astype(np.float64), SAMPLE_RATE)
    found = sound.to_mfcc(number_of_coefficients=MFCC_COUNT, window_length=MFCC_WINDOW_S, time_step=FRAME_S)
    values: Floats = found.to_array()[1:].T
    index = np.rint(((np.arange(frames) + 0.5) * FRAME_S - found.x1) / found.dx).astype(int)
    frame_values: Floats = values[np.clip(index, 0, len(values) - 1)]
    return frame_values


def mean_db(levels: Floats) -> float:
    """Average levels in dB by their mean power (Praat's "energy" averaging); NaN when there is none."""
    known = levels[~np.isnan(levels)]
    return float(10 * np.log10(np.mean(10 ** (known / 10)))) if known.size else float("nan")


def windows(blocks: Iterable[Samples]) -> Iterator[Window]:
    """Cut a stream into cores of a minute with a margin on either side; the last core is what is left."""
    held: list[Samples] = []
    count, first, core = 0, 0, 0  # samples held, the index of the first of them, the index where the next core begins
    for block in blocks:
        held.append(block)
        count += len(block)
        while first + count >= core + _CORE + _MARGIN:
            samples = np.concatenate(held)
            yield _window(samples[: core + _CORE + _MARGIN - first], first, core, core + _CORE)
            core += _CORE
            held = [samples[core - _MARGIN - first :].copy()]
            first, count = core - _MARGIN, len(held[0])
    if first + count > core:
        yield _window(np.concatenate(held), first, core, first + count)


def _window(samples: Samples, first: int, begin: int, end: int) -> Window:
    frames: Floats = np.arange(begin // _FRAME, end // _FRAME, dtype=np.float64)
    return Window(samples, first / SAMPLE_RATE, (frames + 0.5) * FRAME_S)


def _pitch(sound: parselmouth.Sound, times: Floats) -> Floats:
    if sound.duration < MIN_PITCH_S:
        return np.full(len(times), np.nan)
    pitch = sound.to_pitch_ac(time_step=FRAME_S, pitch_floor=PITCH_FLOOR_HZ, pitch_ceiling=PITCH_CEILING_HZ)
    values = pitch.selected_array["frequency"]
    return _nearest(np.where(values > 0, values, np.nan), pitch, times)


def _intensity(sound: parselmouth.Sound, times: Floats) -> Floats:
    if sound.duration < MIN_INTENSITY_S:
        return np.full(len(times), np.nan)
    intensity = sound.to_intensity(minimum_pitch=INTENSITY_FLOOR_HZ, time_step=FRAME_S)
    values = intensity.values[0]
    return _nearest(np.where(values > _DIGITAL_SILENCE_DB, values, np.nan), intensity, times)


def _nearest(values: Floats, frames: parselmouth.Sampled, times: Floats) -> Floats:
    """Return the value of the Praat frame nearest to each time, NaN beyond the first and the last."""
    index = np.rint((times - frames.x1) / frames.dx).astype(int)
    inside = (index >= 0) & (index < len(values))
    return np.where(inside, values[np.clip(index, 0, len(values) - 1)], np.nan)


def _gated(pitch: Floats, intensity: Floats) -> Tracks:
    """Mark frames far below the recording's loud level as unvoiced: Praat can compare only within one window."""
    quiet = intensity < _loud_level(intensity) - PITCH_SILENCE_DB
    return Tracks(np.where(quiet, np.nan, pitch), intensity)


def _loud_level(levels: Floats) -> float:
    known = levels[~np.isnan(levels)]
    return float(np.percentile(known, 99)) if known.size else float("nan")


def _peaks(levels: Floats, dip_db: float) -> Iterator[int]:
    """Yield the index of each peak with a fall of `dip_db` on both sides; the ends and gaps count as falls."""
    known = np.append(np.nan_to_num(levels, nan=_NO_LEVEL_DB), _NO_LEVEL_DB)
    low, peak = _NO_LEVEL_DB, None
    for index, level in enumerate(known.tolist()):
        if peak is None:
            low = min(low, level)
            peak = index if level >= low + dip_db else None
        elif level > known[peak]:
            peak = index
        elif level <= known[peak] - dip_db:
            yield peak
            low, peak = level, None


def _contour(values: Floats, summary: Callable[[Floats], float]) -> Contour:
    step = max(1, -(-len(values) // MAX_POINTS))
    starts = range(0, len(values), step)
    times = [FRAME_S * (start + min(start + step, len(values))) / 2 for start in starts]
    points = [summary(values[start : start + step]) for start in starts]
    return Contour(np.array(times), np.array(points))


def _median_of_most(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if 2 * known.size >= values.size else float("nan")
