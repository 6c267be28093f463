"""Decodes a recording's file into mono blocks at 16 kHz, and measures its duration and loudness on the way."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from analysis_server.errors import AnalysisError
from analysis_server.loudness import LoudnessMeter
from contracts.failures import sentence
from decoding.errors import RejectedError
from decoding.inspecting import check_whole
from decoding.reading import Reading

SAMPLE_RATE = 16_000
"""In Hz. The aligner's model needs this rate, and 8 kHz of bandwidth is enough for every measure made here."""

Samples = NDArray[np.float32]


class AudioFile:
    """One recording on disk; all else about it is final once `blocks()` has ended."""

    def __init__(self, path: Path, max_seconds: float) -> None:
        self._reading = Reading(path, max_seconds)
        self._meter = LoudnessMeter()
        self.damaged_packets = 0
        """How many packets could not be decoded and were left out."""

    @property
    def duration_s(self) -> float:
        """Seconds of sound so far."""
        return self._reading.seconds

    @property
    def loudness_lufs(self) -> float | None:
        """Integrated loudness of all channels, ITU-R BS.1770-4, in LUFS; None where the measure is undefined."""
        return self._meter.integrated_lufs()

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording as mono float32 at SAMPLE_RATE, full scale being 1, a small block at a time.

        Raises AnalysisError with a FailureCode of the contracts, such as `not_audio` or `audio_damaged`.
        """
        try:
            yield from self._decoded()
            self.damaged_packets = check_whole(self._reading)
        except RejectedError as error:
            raise AnalysisError(error.reason.value, sentence(error.reason, "en")) from None

    def _decoded(self) -> Iterator[Samples]:
        resampling = Resampling("flt", "mono", SAMPLE_RATE)
        for frame in self._reading.frames():
            self._meter.push(frame)
            yield from map(_samples, resampling.push(frame))
        yield from map(_samples, resampling.flush())


class Resampling:
    """Converts frames to one format. The source format may change midway, as in a chained stream."""

    def __init__(self, sample_format: str, layout: str, rate: int) -> None:
        self._target = (sample_format, layout, rate)
        self._source: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None

    def push(self, frame: AudioFrame) -> Iterator[AudioFrame]:
        """Yield the converted frames that are complete now; at most a few are held back."""
        source = (frame.format.name, frame.layout.name, frame.sample_rate)
        if source != self._source:
            yield from self.flush()
            self._source = source
            self._resampler = AudioResampler(*self._target)
        assert self._resampler is not None  # noqa: S101 - made above with the first frame
        yield from self._resampler.resample(frame)

    def flush(self) -> Iterator[AudioFrame]:
        """Yield what the resampler still holds."""
        if self._resampler is not None:
            yield from self._resampler.resample(None)
            self._resampler = None


def _samples(frame: AudioFrame) -> Samples:
    samples: Samples = np.nan_to_num(frame.to_ndarray()[0], posinf=1.0, neginf=-1.0)
    return samples
