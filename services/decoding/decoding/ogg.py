"""Chained Ogg files: where the next link begins."""

import mmap
import re
from pathlib import Path

_FIRST_PAGE = re.compile(rb"OggS\0[\2\6]")
"""A page that begins a logical bitstream, complete with its capture pattern and version (RFC 3533, section 6)."""


def next_link(path: Path, position: int) -> int | None:
    """Return the byte at which the first link after `position` begins; None when there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = _FIRST_PAGE.search(content, position + 1)
    return None if found is None else found.start()
