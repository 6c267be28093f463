"""What a file's header promises exactly, and how much of it is missing. An estimate is no promise."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decoding.reading import Facts, Reading

UNKNOWN_WAV_BYTES = 0x7FFF0000
"""A data chunk whose size is at least this, or 0, was written by a program that did not know the length."""
HEADER_BYTES = 44
"""How much too large a data chunk's size may be: some programs count the header in it."""
MAX_CHUNKS = 1000
"""How many chunks before the sound are walked through; real files have a few."""
SLACK_FRAMES = 2
"""How many frames of an MP3 may be missing at its end: decoders and encoders count the first ones differently."""
_LARGEST_MP3_FRAME = 1441
_XING_SEARCH_BYTES = 4096
_XING_AT = {(3, False): 36, (3, True): 21, (2, False): 21, (2, True): 13, (0, False): 21, (0, True): 13}
"""Where the Xing header begins in its frame, by MPEG version (3 is 1, 2 is 2, 0 is 2.5) and whether it is mono."""
_ID3_BYTES = 10
"""The size of an ID3v2 header, and of its footer."""
_XING = re.compile(rb"Xing|Info")
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


class Missing(NamedTuple):
    """How much of what a file promises is not in it."""

    is_cut: bool
    """The file ends too early."""
    packets: int = 0
    """How many packets are lost although the file goes on to its end."""
    share: float = 0.0
    """The same as a share of all the sound, from 0 to 1."""


_NOTHING = Missing(is_cut=False)


def missing(reading: Reading) -> Missing:
    """Return how much of what the file promises exactly is not there; nothing for one that promises nothing."""
    facts = reading.facts
    assert facts is not None  # noqa: S101 - the reading has ended
    match facts.container:
        case "flac":
            return _of_flac(facts, reading)
        case "mp3":
            return _of_mp3(reading.path, reading.packets)
        case "mov":
            return Missing(facts.index_end > reading.path.stat().st_size)
        case "wav" | "w64":
            return Missing(_data_beyond_end(reading.path) > HEADER_BYTES)
        case "aiff" | "caf" | "au" if facts.codec.startswith("pcm_"):
            return Missing(facts.declared_samples - reading.samples > HEADER_BYTES)
    return _NOTHING


def _of_flac(facts: Facts, reading: Reading) -> Missing:
    """Believe STREAMINFO's total (RFC 9639, section 8.2) when the last frame is of the same opinion, or is cut itself.

    A program that copies a part of a file keeps the total and writes whole frames.
    """
    promised = int.from_bytes(facts.extradata[13:18], "big") & 0xF_FFFF_FFFF
    lost = promised - reading.samples
    if lost <= 0:
        return _NOTHING
    if facts.last_sample < promised:
        return Missing(is_cut=_crc16(facts.last_packet) != 0)
    return Missing(is_cut=False, packets=-(-lost * reading.packets // promised), share=lost / promised)


def _of_mp3(path: Path, packets: int) -> Missing:
    """Compare with the Xing or Info header, which counts the frames, and mostly the bytes too."""
    with path.open("rb") as file:
        start = _after_id3(file.read(_ID3_BYTES))
        file.seek(start)
        head = file.read(_XING_SEARCH_BYTES)
    frame, at = _xing(head)
    if at is None or len(head) < at + 16:
        return _NOTHING
    flags, *numbers = struct.unpack_from(">3I", head, at + 4)
    frames = numbers.pop(0) if flags & 1 else 0
    size = numbers.pop(0) if flags & 2 else 0
    lost = frames - packets
    if lost <= SLACK_FRAMES:
        return _NOTHING
    goes_on = size and path.stat().st_size - (start + frame) + _LARGEST_MP3_FRAME >= size
    return Missing(is_cut=False, packets=lost, share=lost / frames) if goes_on else Missing(is_cut=True)


def _xing(head: bytes) -> tuple[int, int | None]:
    """Return where the first frame begins, and where its Xing or Info header; None without one."""
    for found in _XING.finditer(head):
        for (version, is_mono), offset in _XING_AT.items():
            frame = head[max(0, found.start() - offset) : found.start()]
            if len(frame) == offset and _is_frame(frame, version, is_mono=is_mono):
                return found.start() - offset, found.start()
    return 0, None


def _is_frame(frame: bytes, version: int, *, is_mono: bool) -> bool:
    """Tell whether this begins an MPEG audio frame of the version (ISO/IEC 11172-3, section 2.4.1.3)."""
    return frame[0] == 0xFF and frame[1] >> 3 == 0b11100 | version and (frame[3] >> 6 == 0b11) == is_mono  # noqa: PLR2004 - 0xFF begins the sync word


def _after_id3(head: bytes) -> int:
    """Return where an ID3v2 tag at the beginning ends (id3v2.4.0-structure, section 3.1)."""
    if head[:3] != b"ID3" or len(head) < _ID3_BYTES:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    return _ID3_BYTES + size + (_ID3_BYTES if head[5] & 0x10 else 0)


def _data_beyond_end(path: Path) -> int:
    """Return by how many bytes the data chunk is longer than the file; FFmpeg silently decodes what there is."""
    end = path.stat().st_size
    for name, at, size in _chunks(path, end):
        if name in {b"data", _W64_DATA}:
            return at + size - end if 0 < size < UNKNOWN_WAV_BYTES or name == _W64_DATA else 0
    return 0


def _chunks(path: Path, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins, and its size.

    WAV: "Multimedia Programming Interface and Data Specifications 1.0", RIFF. W64: names are GUIDs, a size counts its
    own header of 24 bytes, and content is padded to 8 bytes.
    """
    with path.open("rb") as file:
        is_w64 = file.read(4) == b"riff"
        header, padding, position = ("<16sQ", 8, 40) if is_w64 else ("<4sI", 2, 12)
        length = struct.calcsize(header)
        for _ in range(MAX_CHUNKS):
            file.seek(position)
            found = file.read(length)
            if len(found) < length or position > end:
                return
            name, size = struct.unpack(header, found)
            size = max(0, size - length) if is_w64 else size
            yield name, position + length, size
            position += length + size + -size % padding


def _crc16(frame: bytes) -> int:
    """Return the CRC-16 of RFC 9639, section 9.3, which is 0 over a whole FLAC frame with its own checksum."""
    crc = 0
    for byte in frame:
        crc ^= byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (0x18005 if crc & 0x8000 else 0)
    return crc
