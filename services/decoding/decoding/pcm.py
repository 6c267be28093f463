"""WAVs whose samples are plain numbers: read with numpy, for which FFmpeg's frames would be many times as dear.

Sources: "Multimedia Programming Interface and Data Specifications 1.0" (IBM and Microsoft, 1991), and "Multiple Channel
Audio Data and WAVE Files" (Microsoft, 2007) for the extensible format.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decoding import chunks, headers

_INTEGER, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CODECS = {
    (_INTEGER, 8): ("pcm_u8", "u1"),
    (_INTEGER, 16): ("pcm_s16le", "<i2"),
    (_INTEGER, 24): ("pcm_s24le", "<i4"),
    (_INTEGER, 32): ("pcm_s32le", "<i4"),
    (_FLOAT, 32): ("pcm_f32le", "<f4"),
    (_FLOAT, 64): ("pcm_f64le", "<f8"),
}
"""FFmpeg's name of a codec, and numpy's of its numbers, by format and bits."""
_GUID_REST = bytes.fromhex("000000001000800000aa00389b71")
"""How the GUID of an extensible format goes on after the number of the format."""
_FORMAT = "<HHIIHH"
_FORMAT_BYTES = 40
"""How much of a format chunk is read: all that an extensible one has."""
_PACKED = "pcm_s24le"
_BLOCK_BYTES = 2 * 1024 * 1024


class Format(NamedTuple):
    """What the `fmt ` chunk says of the samples. `frame_bytes` is the size of one sample of all channels."""

    codec: str
    numbers: str
    sample_rate: int
    channels: int
    frame_bytes: int


class PlainWav(NamedTuple):
    """A WAV with `frames` whole samples from byte `at` on; `is_cut` when it ends before its header says."""

    path: Path
    form: Format
    at: int
    frames: int
    is_cut: bool

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.frames / self.form.sample_rate

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield all samples, up to 2 MiB at a time, as arrays of channels × samples."""
        form, left = self.form, self.frames
        # Whole tenths of a second: peaks are taken over hundredths, and should not depend on where a block ends.
        step = max(1, form.sample_rate // 10)
        most = max(1, _BLOCK_BYTES // (form.frame_bytes * step)) * step
        with self.path.open("rb") as file:
            file.seek(self.at)
            while left:
                count = min(left, most)
                numbers = _numbers(file.read(count * form.frame_bytes), form)
                yield numbers.reshape(-1, form.channels).T
                left -= count


def plain_wav(path: Path) -> PlainWav | None:
    """Return what is known of a WAV of plain numbers; None for any other file, and for one that FFmpeg knows better."""
    start, head = headers.beginning(path)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    form, at, size = None, 0, 0
    for name, begins, length in chunks.walk(path, start):
        if name == b"fmt " and form is None:
            form = _format(path, begins, length)
        elif name == b"data" and form is not None and not at:
            at, size = begins, length
        elif name in {b"fmt ", b"data"}:
            return None
    if form is None or not chunks.is_known(size):
        return None
    beyond = at + size - path.stat().st_size
    frames = (size - max(0, beyond)) // form.frame_bytes
    return PlainWav(path, form, at, frames, is_cut=beyond > chunks.HEADER_BYTES)


def _format(path: Path, begins: int, length: int) -> Format | None:
    with path.open("rb") as file:
        file.seek(begins)
        content = file.read(min(length, _FORMAT_BYTES))
    if len(content) < struct.calcsize(_FORMAT):
        return None
    kind, channels, sample_rate, _, frame_bytes, bits = struct.unpack_from(_FORMAT, content)
    if kind == _EXTENSIBLE and content[26:] == _GUID_REST and int.from_bytes(content[18:20], "little") == bits:
        kind = int.from_bytes(content[24:26], "little")
    if (kind, bits) not in _CODECS or not sample_rate or not channels or frame_bytes != bits // 8 * channels:
        return None
    return Format(*_CODECS[kind, bits], sample_rate, channels, frame_bytes)


def _numbers(content: bytes, form: Format) -> NDArray[Any]:
    if form.codec != _PACKED:
        return np.frombuffer(content, form.numbers)
    packed = np.frombuffer(content, np.uint8).reshape(-1, 3)
    wide = np.zeros((len(packed), 4), np.uint8)
    wide[:, 1:] = packed
    numbers: NDArray[Any] = wide.view(form.numbers)[:, 0]
    return numbers
