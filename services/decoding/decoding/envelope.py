"""A recording's outline: its peaks over time, gathered before its length is known."""

from array import array

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

    def add(self, frame: AudioFrame) -> None:
        """Take in one decoded frame."""
        block = max(1, frame.sample_rate // PEAKS_PER_SECOND)
        starts = np.arange(0, frame.samples, block, dtype=np.int64)
        self._peaks.frombytes(np.maximum.reduceat(_loudest_channel(frame), starts).tobytes())
        self._starts.frombytes((self._seconds + starts / frame.sample_rate).tobytes())
        self._seconds += frame.samples / frame.sample_rate

    def points(self) -> list[int]:
        """Return the peaks of up to 200 equal stretches, 255 for full scale."""
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


def _loudest_channel(frame: AudioFrame) -> NDArray[np.float32]:
    """Return |amplitude| per sample over all channels, 1.0 for full scale."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    # A damaged float recording may hold NaN and infinity.
    levels: NDArray[np.float32] = np.asarray(np.nan_to_num(samples), dtype=np.float32)
    if samples.dtype == np.uint8:
        levels -= 128
        levels /= 128
    elif np.issubdtype(samples.dtype, np.integer):
        levels /= 2.0 ** (8 * samples.dtype.itemsize - 1)
    loudest: NDArray[np.float32] = np.abs(levels).max(axis=0)
    return loudest
