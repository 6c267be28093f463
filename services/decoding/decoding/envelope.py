"""A recording's outline: its peaks over time, gathered before its length is known."""

from array import array
from typing import Any

import numpy as np
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
        self._waiting: list[NDArray[Any]] = []
        self._format: tuple[int, int, np.dtype[Any]] | None = None
        self._samples = 0

    def add_frame(self, frame: AudioFrame) -> None:
        """Take in one decoded frame."""
        samples = frame.to_ndarray()
        planar = samples if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels).T
        self.add(planar, frame.sample_rate)

    def add(self, channels: NDArray[Any], sample_rate: int) -> None:
        """Take in sound: an array of channels × samples of any type of number."""
        form = (sample_rate, len(channels), channels.dtype)
        if form != self._format:
            self._take_in()
            self._format = form
        self._waiting.append(channels)
        self._samples += channels.shape[1]
        if self._samples >= sample_rate:
            self._take_in()

    def _take_in(self) -> None:
        if not self._waiting or self._format is None:
            return
        rate = self._format[0]
        starts = np.arange(0, self._samples, max(1, rate // PEAKS_PER_SECOND), dtype=np.int64)
        self._peaks.frombytes(_peaks(np.concatenate(self._waiting, axis=1), starts).tobytes())
        self._starts.frombytes((self._seconds + starts / rate).tobytes())
        self._seconds += self._samples / rate
        self._waiting, self._samples = [], 0

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
    # A damaged float recording may hold NaN and infinity. Only the few numbers per block are converted.
    if np.issubdtype(channels.dtype, np.floating):
        channels = np.nan_to_num(channels)
    highest = _scaled(np.maximum.reduceat(channels, starts, axis=1))
    lowest = _scaled(np.minimum.reduceat(channels, starts, axis=1))
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
