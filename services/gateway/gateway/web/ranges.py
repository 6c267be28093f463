"""Which bytes of an object a Range header asks for (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

_SINGLE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)


class UnsatisfiableRangeError(ValueError):
    """The range lies beyond the object's end."""


@dataclass(frozen=True)
class ByteRange:
    """From `first` to `last`, both included, of an object of `size` bytes."""

    first: int
    last: int
    size: int

    @property
    def length(self) -> int:
        """The number of bytes in the range."""
        return self.last - self.first + 1

    @property
    def content_range(self) -> str:
        """The Content-Range header of the answer."""
        return f"bytes {self.first}-{self.last}/{self.size}"


def requested_range(header: str | None, if_range: str | None, etag: str, size: int) -> ByteRange | None:
    """Return the range to answer with, None for the whole object; UnsatisfiableRangeError when there is no such byte.

    The answer is the whole object when several ranges are asked for, when the header is not a valid range, and when it
    is about another version of the object (If-Range, section 13.1.5). A date in If-Range never matches, because our
    answers have no Last-Modified.
    """
    if header is None or (if_range is not None and if_range.strip() != etag):
        return None
    match = _SINGLE.fullmatch(header.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = map(_number, match.groups())
    return _within(first, last, size)


def _number(digits: str) -> int | None:
    # No object is so large that it needs twenty digits, and int() refuses text of thousands of digits.
    return int(digits.lstrip("0")[:20] or "0") if digits else None


def _within(first: int | None, last: int | None, size: int) -> ByteRange | None:
    if first is None:
        if not last or not size:
            raise UnsatisfiableRangeError
        return ByteRange(max(0, size - last), size - 1, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise UnsatisfiableRangeError
    return ByteRange(first, size - 1 if last is None else min(last, size - 1), size)
