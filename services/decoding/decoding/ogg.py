"""Ogg files: where the links of a chain begin and end, and how many pages are damaged."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CAPTURE = b"OggS\0"
"""How a page begins: the capture pattern, and the version (RFC 3533, section 6)."""
_HEADER_BYTES = 27
_LARGEST_PAGE = _HEADER_BYTES + 255 + 255 * 255
_WINDOW_BYTES = 1024 * 1024
_BEGINS_STREAM = 2
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Link(NamedTuple):
    """One of the files that follow one another in a chain, as the bytes that it takes."""

    start: int
    end: int


class _Page(NamedTuple):
    position: int
    end: int
    begins_stream: bool
    serial: bytes
    number: int


def links(path: Path) -> list[Link]:
    """Return the links (RFC 3533, section 4): each begins with the first pages of its streams. At least one."""
    starts, in_sound, end = [0], False, 0
    for page in _pages(path):
        if page.begins_stream and (in_sound or page.position > end):
            starts.append(page.position)
        in_sound, end = not page.begins_stream, page.end
    return [Link(*ends) for ends in zip(starts, [*starts[1:], path.stat().st_size], strict=True)]


def lost_pages(path: Path) -> tuple[int, int]:
    """Return how many pages are lost where bytes are damaged, and how many there are.

    A page that is missing without a trace was left out on purpose.
    """
    lost = count = end = 0
    numbers: dict[bytes, int] = {}
    for page in _pages(path):
        count += 1
        if page.begins_stream:
            numbers.pop(page.serial, None)
        if page.position > end:
            lost += max(0, page.number - numbers.get(page.serial, page.number) - 1)
        numbers[page.serial], end = page.number, page.end
    return lost, count


def _pages(path: Path) -> Iterator[_Page]:
    """Yield the pages whose checksum is right: FFmpeg takes no others."""
    window, base, more = b"", 0, b"-"
    with path.open("rb") as file:
        while more:
            more = file.read(_WINDOW_BYTES)
            window += more
            # A page that begins before this is in the window as a whole, or is cut off by the end of the file.
            safe, position = len(window) - _LARGEST_PAGE if more else len(window), 0
            while 0 <= (found := window.find(_CAPTURE, position)) < safe:
                page = _page(window, found)
                if page is not None:
                    yield page._replace(position=base + found, end=base + page.end)
                position = found + 1 if page is None else page.end
            position = max(position, found if found >= 0 else len(window) - len(_CAPTURE) + 1)
            window, base = window[position:], base + position


def _page(content: bytes, position: int) -> _Page | None:
    header = content[position : position + _HEADER_BYTES]
    if len(header) < _HEADER_BYTES:
        return None
    table = content[position + _HEADER_BYTES : position + _HEADER_BYTES + header[26]]
    end = position + _HEADER_BYTES + len(table) + sum(table)
    whole = content[position:end]
    if len(whole) < end - position or _checksum(whole) != header[22:26]:
        return None
    number = int.from_bytes(header[18:22], "little")
    return _Page(position, end, bool(header[5] & _BEGINS_STREAM), header[14:18], number)


def _checksum(page: bytes) -> bytes:
    """Return the checksum of a page. It is zlib's, but bits run the other way, and nothing is inverted."""
    cleared = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(cleared.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED)
