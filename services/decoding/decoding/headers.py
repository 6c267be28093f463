"""How files begin, and whether one that cannot be opened ends before what its first bytes promise."""

import re
from pathlib import Path

from decoding import chunks, tags, xing

MAX_BOXES = 1000
"""How many boxes or blocks are walked through; real files have a few at this level."""
_BOX_BYTES = 16


MAX_TAGS = 100
"""How many tags one after the other are passed over; real files have one or two."""
_HEAD_BYTES = 12
_KNOWN = re.compile(
    rb"RIFF.{4}WAVE|(?:RF64|BW64).{4}WAVE|riff\x2e\x91\xcf\x11|FORM.{4}AIF[FC]|caff|\.snd|fLaC|ID3|OggS|.{4}ftyp|\x1aE\xdf\xa3"
    rb"|#!AMR|\x30\x26\xb2\x75",
    re.DOTALL,
)


def beginning(path: Path) -> tuple[int, bytes]:
    """Return the byte at which the file begins, after tags that some programs put there, and its first bytes."""
    with path.open("rb") as file:
        start, head = 0, file.read(_HEAD_BYTES)
        first = head
        for _ in range(MAX_TAGS):
            tag = tags.size(head)
            if not tag:
                break
            start += tag
            file.seek(start)
            head = file.read(_HEAD_BYTES)
    # Before bare frames, which begin like nothing else, the tags are FFmpeg's.
    return (start, head) if is_known(head) else (0, first)


def is_known(head: bytes) -> bool:
    """Tell whether a file of a known container begins so: when it cannot be opened, it is damaged or cut."""
    return _KNOWN.match(head) is not None


def is_cut(path: Path, start: int, head: bytes) -> bool:
    """Tell whether the file, from byte `start` on, promises more than there is, as far as it promises anything."""
    if head[4:8] == b"ftyp":
        return _lacks_index(path, start)
    if head[:4] == b"fLaC":
        return _lacks_metadata(path, start)
    if head[:3] == b"ID3":
        frames, end = xing.counted(path)
        return max(end, tags.size(head)) > path.stat().st_size or (frames > 0 and not end)
    return chunks.sound_beyond_end(path, start) > 0


def _lacks_index(path: Path, start: int) -> bool:
    """Tell whether a box of an MP4 (ISO/IEC 14496-12, section 4.2) is longer than the file, or none is `moov`."""
    end, position = path.stat().st_size, start
    with path.open("rb") as file:
        for _ in range(MAX_BOXES):
            file.seek(position)
            header = file.read(_BOX_BYTES)
            if header[4:8] == b"moov" or not header:
                break
            size = int.from_bytes(header[:4], "big")
            position += (int.from_bytes(header[8:], "big") if size == 1 else size) or end
    return position > end or header[4:8] != b"moov" or position + int.from_bytes(header[:4], "big") > end


def _lacks_metadata(path: Path, start: int) -> bool:
    """Tell whether a metadata block of a FLAC (RFC 9639, section 8.1) is longer than the file."""
    end, position, is_last = path.stat().st_size, start + 4, False
    with path.open("rb") as file:
        for _ in range(MAX_BOXES):
            if is_last or position >= end:
                break
            file.seek(position)
            header = file.read(4)
            is_last = header[0] >= 0x80  # noqa: PLR2004 - the first bit
            position += 4 + int.from_bytes(header[1:], "big")
    return position >= end
