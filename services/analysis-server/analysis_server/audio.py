"""Decodes a recording's file into mono blocks at 16 kHz, and measures its duration and loudness on the way."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from analysis_server.errors import AnalysisError
from analysis_server.loudness import LoudnessMeter

SAMPLE_RATE = 16_000
"""In Hz. The aligner's model needs this rate, and 8 kHz of bandwidth is enough for every measure made here."""

Samples = NDArray[np.float32]

# Playlist formats are left out on purpose: they could name other files or addresses for the decoder to open.
_FORMATS = "wav,w64,aiff,au,caf,flac,mp3,aac,ogg,mov,mp4,m4a,matroska,webm,asf,amr"


class AudioFile:
    """One recording on disk; `duration_s` and `loudness_lufs` are final once `blocks()` has ended."""

    def __init__(self, path: Path, max_seconds: float) -> None:
        self._path = path
        self._max_seconds = max_seconds
        self._meter = LoudnessMeter()
        self.duration_s = 0.0

    @property
    def loudness_lufs(self) -> float | None:
        """Integrated loudness of all channels, ITU-R BS.1770-4, in LUFS; None where the measure is undefined."""
        return self._meter.integrated_lufs()

    def blocks(self) -> Iterator[Samples]:
        """Yield the recording as mono float32 at SAMPLE_RATE, full scale being 1, a small block at a time.

        Raises AnalysisError `not_audio`, `audio_damaged`, `audio_empty` or `audio_too_long`.
        """
        try:
            yield from self._decoded()
        except FFmpegError:
            raise AnalysisError(
                "audio_damaged", "The recording is damaged or cut off and could not be decoded to its end."
            ) from None
        if not self.duration_s:
            raise AnalysisError("audio_empty", "The recording has no sound in it: zero samples.")

    def _decoded(self) -> Iterator[Samples]:
        resampling = Resampling("flt", "mono", SAMPLE_RATE)
        with _open(self._path) as container:
            if not container.streams.audio:
                raise AnalysisError("not_audio", "The file has no audio track in it.")
            for frame in container.decode(container.streams.audio[0]):
                self.duration_s += frame.samples / frame.sample_rate
                self._check_length()
                self._meter.push(frame)
                yield from map(_samples, resampling.push(frame))
        yield from map(_samples, resampling.flush())

    def _check_length(self) -> None:
        if self.duration_s > self._max_seconds + 1:  # a second of grace: codecs pad their first and last frames
            raise AnalysisError("audio_too_long", f"The recording is longer than {self._max_seconds:g} seconds.")


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


def _open(path: Path) -> InputContainer:
    av.logging.set_level(None)
    only = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    try:
        return av.open(str(path), options=only, metadata_errors="replace")  # tags may be in any encoding; none is used
    except FFmpegError:
        raise AnalysisError("not_audio", "The file is not audio in a format that can be decoded.") from None


def _samples(frame: AudioFrame) -> Samples:
    samples: Samples = np.nan_to_num(frame.to_ndarray()[0], posinf=1.0, neginf=-1.0)
    return samples
