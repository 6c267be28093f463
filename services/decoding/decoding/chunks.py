"""Files that are made of chunks: how much of the sound's chunk is missing."""

import struct
from collections.abc import Iterator
from pathlib import Path

UNKNOWN_BYTES = 0x7EFF0000
"""A chunk whose size is at least this, 0 or negative was written by a program that did not know the length."""
_UNKNOWN_W64_BYTES = 2**62
"""The same in a W64, whose sizes have 64 bits."""
HEADER_BYTES = 44
"""How much too large a sound's size may be: some programs count the header in it."""
MAX_CHUNKS = 1000
"""How many chunks before the sound are walked through; real files have a few."""
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_LAYOUTS = {
    b"RIFF": ("<4sI", 2, 12),
    b"RF64": ("<4sI", 2, 12),
    b"BW64": ("<4sI", 2, 12),
    b"riff": ("<16sQ", 8, 40),
    b"FORM": (">4sI", 2, 12),
    b"caff": (">4sq", 1, 8),
}
"""By the file's first bytes: a chunk's header, to how many bytes a chunk is padded, and where the first one begins.

WAV: "Multimedia Programming Interface and Data Specifications 1.0". W64: names are GUIDs, and a size counts its own
header. AIFF: "Audio Interchange File Format 1.3". CAF: "Core Audio Format Specification 1.0".
"""


def sound_beyond_end(path: Path, start: int) -> int:
    """Return by how many bytes the sound is longer than the file, which begins at byte `start`.

    FFmpeg silently decodes what there is.
    """
    end, wide_size = path.stat().st_size, 0
    with path.open("rb") as file:
        file.seek(start)
        magic = file.read(4)
        if magic == b".snd":
            at, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
            return _beyond(start + at, size, end)
        for name, at, size in walk(path, start):
            if name == b"ds64":
                # RF64 (EBU Tech 3306) has the sizes here, when they do not fit into 32 bits.
                file.seek(at + 8)
                wide_size = int.from_bytes(file.read(8), "little")
            if name == _W64_DATA:
                return at + size - end if size < _UNKNOWN_W64_BYTES else 0
            if name in {b"data", b"SSND"}:
                return at + wide_size - end if wide_size and size >= UNKNOWN_BYTES else _beyond(at, size, end)
    return 0


def _beyond(at: int, size: int, end: int) -> int:
    return at + size - end if is_known(size) else 0


def is_known(size: int) -> bool:
    """Tell whether the size of a chunk was known to the program that wrote it."""
    return 0 < size < UNKNOWN_BYTES


def walk(path: Path, start: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins, and its size; of a file that begins at byte `start`."""
    end = path.stat().st_size
    with path.open("rb") as file:
        file.seek(start)
        magic = file.read(4)
        if magic not in _LAYOUTS:
            return
        header, padding, first = _LAYOUTS[magic]
        position, length = start + first, struct.calcsize(header)
        for _ in range(MAX_CHUNKS):
            file.seek(position)
            found = file.read(length)
            if len(found) < length:
                return
            name, size = struct.unpack(header, found)
            size = max(0, size - length) if magic == b"riff" else size
            yield name, position + length, size
            position += length + max(0, size) + -max(0, size) % padding
            if position > end:
                return
