"""Files that cannot be opened: whether they end before what their first bytes promise."""

from pathlib import Path

from decoding import chunks, tags, xing

MAX_BOXES = 1000
"""How many boxes or blocks are walked through; real files have a few at this level."""
_BOX_BYTES = 16


def is_cut(path: Path, start: int, beginning: bytes) -> bool:
    """Tell whether the file, from byte `start` on, promises more than there is, as far as it promises anything."""
    if beginning[4:8] == b"ftyp":
        return _lacks_index(path, start)
    if beginning[:4] == b"fLaC":
        return _lacks_metadata(path, start)
    if beginning[:3] == b"ID3":
        frames, end = xing.counted(path)
        return max(end, tags.size(beginning)) > path.stat().st_size or (frames > 0 and not end)
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
