"""The Xing or Info header, with which encoders begin an MP3: how many frames and bytes it should have."""

import re
import struct
from pathlib import Path

from decoding import tags

_SEARCH_BYTES = 4096
_AT = {(3, False): 36, (3, True): 21, (2, False): 21, (2, True): 13, (0, False): 21, (0, True): 13}
"""Where the Xing header begins in its frame, by MPEG version (3 is 1, 2 is 2, 0 is 2.5) and whether it is mono."""
_NAME = re.compile(rb"Xing|Info")


def counted(path: Path) -> tuple[int, int]:
    """Return how many frames there should be, and the byte at which the last should end; 0 for what is not said."""
    with path.open("rb") as file:
        start = 0
        while tag := tags.size(file.read(32)):
            start += tag
            file.seek(start)
        file.seek(start)
        head = file.read(_SEARCH_BYTES)
    frame, at = _header(head)
    if at is None or len(head) < at + 16:
        return 0, 0
    flags, *numbers = struct.unpack_from(">3I", head, at + 4)
    frames = numbers.pop(0) if flags & 1 else 0
    return frames, start + frame + numbers.pop(0) if flags & 2 else 0


def _header(head: bytes) -> tuple[int, int | None]:
    """Return where the first frame begins, and where its Xing or Info header; None without one."""
    for found in _NAME.finditer(head):
        for (version, is_mono), offset in _AT.items():
            frame = head[max(0, found.start() - offset) : found.start()]
            if len(frame) == offset and _is_frame(frame, version, is_mono=is_mono):
                return found.start() - offset, found.start()
    return 0, None


def _is_frame(frame: bytes, version: int, *, is_mono: bool) -> bool:
    """Tell whether this begins an MPEG audio frame of the version (ISO/IEC 11172-3, section 2.4.1.3)."""
    return frame[0] == 0xFF and frame[1] >> 3 == 0b11100 | version and (frame[3] >> 6 == 0b11) == is_mono  # noqa: PLR2004 - 0xFF begins the sync word
