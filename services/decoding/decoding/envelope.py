"""A recording's outline: its peaks over time, gathered before its length is known."""

from array import array
from typing import Any

import numpy as np
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame
from numpy.typing import NDArray

POINTS = 200
PEAKS_PER_SECOND = 100
_ROUNDING = 1e-6


class Envelope:
    """Peaks of short blocks of sound. The rate may change midway, as in a chained stream."""

    def __init__(self) -> None:
        # Two growing buffers: an array for each frame would lie between the blocks that decoding frees, and would keep
        # all that memory from being returned.
        self._peaks = array("f")
        self._starts = array("d")
        self._seconds = 0.0
        # Frames of one format wait for a second of sound: numpy costs more per call than per sample.
        self._waiting = AudioFifo()
        self._format: tuple[int, str, str] | None = None

    def add_frame(self, frame: AudioFrame) -> None:
        """Take in one decoded frame; its time is lost."""
        form = (frame.sample_rate, frame.layout.name, frame.format.name)
        if form != self._format:
            self._take_in()
            self._waiting, self._format = AudioFifo(), form
        frame.pts = None  # the queue wants times without gaps, or none
        self._waiting.write(frame)
        if self._waiting.samples >= frame.sample_rate:
            self._take_in()

    def add(self, channels: NDArray[Any], sample_rate: int) -> None:
        """Take in much sound at once: an array of channels × samples of any type of number."""
        count = channels.shape[1]
        starts = np.arange(0, count, max(1, sample_rate // PEAKS_PER_SECOND), dtype=np.int64)
        self._peaks.frombytes(_peaks(channels, starts).tobytes())
        self._starts.frombytes((self._seconds + starts / sample_rate).tobytes())
        self._seconds += count / sample_rate

    def _take_in(self) -> None:
        frame = self._waiting.read() if self._waiting.samples else None
        if frame is not None:
            samples = frame.to_ndarray()
            planar = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
            self.add(planar, frame.sample_rate)

    def points(self) -> list[int]:
        """Return the peaks of up to 200 equal stretches, 255 for full scale."""
        self._take_in()
        peaks = np.frombuffer(self._peaks, dtype=np.float32)
        starts = np.frombuffer(self._starts, dtype=np.float64)
        # A frame's last block is often short. Every stretch must be long enough for a block to begin in it.
        count = min(POINTS, max(1, int(self._seconds * PEAKS_PER_SECOND)))
        highest = np.zeros(count, dtype=np.float32)
        # A little more than exact, since a block that begins with a stretch must not fall before it by rounding.
        stretches = np.minimum((starts * count / self._seconds + _ROUNDING).astype(np.int64), count - 1)
        np.maximum.at(highest, stretches, peaks)
        scaled: list[int] = np.rint(np.clip(highest, 0, 1) * 255).astype(int).tolist()
        return scaled


def _peaks(channels: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the highest |amplitude| in any channel from each start to the next, 1.0 for full scale."""
    # Only the few numbers per block are converted, and those of a damaged float recording which holds NaN.
    highest = np.maximum.reduceat(channels, starts, axis=1)
    if channels.dtype.kind == "f" and np.isnan(highest).any():
        channels = np.nan_to_num(channels)
        highest = np.maximum.reduceat(channels, starts, axis=1)
    highest, lowest = _scaled(highest), _scaled(np.minimum.reduceat(channels, starts, axis=1))
    peaks: NDArray[np.float32] = np.maximum(highest, -lowest).max(axis=0)
    return peaks


def _scaled(samples: NDArray[Any]) -> NDArray[np.float32]:
    # Clipped first: a number of 64 bits may be too large for 32.
    levels: NDArray[np.float32] = np.asarray(
        np.clip(samples, -1, 1) if samples.dtype.kind == "f" else samples, dtype=np.float32
    )
    if samples.dtype.kind == "u":
        levels = np.asarray(levels / 128 - 1, dtype=np.float32)
    elif samples.dtype.kind == "i":
        levels = np.asarray(levels / 2.0 ** (8 * samples.dtype.itemsize - 1), dtype=np.float32)
    return levels
