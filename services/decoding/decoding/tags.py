"""Tags that are put before, between or after the frames of bare files."""

import struct

_ID3_BYTES = 10
"""The size of an ID3v2 header, and of its footer."""
_APE_BYTES = 32
"""The size of an APEv2 header, and of its footer."""


def size(content: bytes) -> int:
    """Return how many bytes the tag takes with which `content` begins; 0 when it begins with none."""
    if content[:3] == b"ID3" and len(content) >= _ID3_BYTES:
        return _id3_size(content)
    if content[:8] == b"APETAGEX" and len(content) >= _APE_BYTES:
        return int(_APE_BYTES + struct.unpack_from("<I", content, 12)[0])
    return 0


def without(content: bytes) -> bytes:
    """Return the content without the APEv2 and ID3v1 tags at its end."""
    ape = content.find(b"APETAGEX")
    if ape >= 0:
        return content[:ape]
    return content[:-128] if content[-128:-125] == b"TAG" else content


def _id3_size(content: bytes) -> int:
    """Return the size of an ID3v2 tag (id3v2.4.0-structure, section 3.1)."""
    length = 0
    for byte in content[6:_ID3_BYTES]:
        length = length << 7 | byte & 0x7F
    return _ID3_BYTES + length + (_ID3_BYTES if content[5] & 0x10 else 0)
