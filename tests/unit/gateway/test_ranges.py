"""Range requests (RFC 9110, section 14): which bytes are meant, and when a range does not count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.web.ranges import ByteRange, UnsatisfiableRangeError, requested_range

ETAG = '"abc"'
SIZE = 10_000


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [
        # The examples of RFC 9110, section 14.1.2, for a representation of 10,000 bytes.
        ("bytes=0-499", 0, 499),
        ("bytes=500-999", 500, 999),
        ("bytes=-500", 9500, 9999),
        ("bytes=9500-", 9500, 9999),
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 9999),
        ("bytes=9999-9999", 9999, 9999),
        ("bytes=9000-20000", 9000, 9999),
        ("bytes=-20000", 0, 9999),
        (f"bytes=5-{'9' * 5000}", 5, 9999),
        ("BYTES= 1-2 ", 1, 2),
        ("bytes=0001-0002", 1, 2),
    ],
)
def test_one_range_is_answered_with_its_bytes(header: str, first: int, last: int) -> None:
    part = requested_range(header, None, ETAG, SIZE)
    assert part == ByteRange(first, last, SIZE)
    assert part.content_range == f"bytes {first}-{last}/{SIZE}"
    assert (part.first, part.last) == (first, last)
    assert part.length == last - first + 1


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0", f"bytes={'9' * 5000}-"])
def test_a_range_beyond_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        requested_range(header, None, ETAG, SIZE)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=2-1", "bytes=a-b", "bytes=0-1,5-6", "lines=0-1", "bytes=٣-٤"],
)
def test_no_range_no_valid_range_and_several_get_the_whole(header: str | None) -> None:
    assert requested_range(header, None, ETAG, SIZE) is None


@pytest.mark.parametrize(
    ("if_range", "whole"),
    [
        (ETAG, False),
        (f" {ETAG} ", False),
        ('"other"', True),
        (f"W/{ETAG}", True),
        ("Mon, 23 Nov 2026 12:00:00 GMT", True),
    ],
)
def test_a_range_of_another_version_gets_the_whole(if_range: str, *, whole: bool) -> None:
    assert (requested_range("bytes=0-1", if_range, ETAG, SIZE) is None) == whole


@given(st.text(), st.integers(min_value=1, max_value=100))
def test_whatever_is_asked_for_the_answer_lies_within(header: str, size: int) -> None:
    for text in (header, f"bytes={header}"):
        try:
            part = requested_range(text, None, ETAG, size)
        except UnsatisfiableRangeError:
            continue
        assert part is None or 0 <= part.first <= part.last < size


@given(st.integers(0, 200), st.integers(0, 200) | st.none(), st.integers(1, 100))
def test_a_range_means_what_a_slice_means(first: int, last: int | None, size: int) -> None:
    content = bytes(range(size))
    expected = content[first : None if last is None else last + 1]
    header = f"bytes={first}-{'' if last is None else last}"
    try:
        part = requested_range(header, None, ETAG, size)
    except UnsatisfiableRangeError:
        assert not expected
        return
    if part is None:
        assert last is not None
        assert last < first
        return
    assert content[part.first : part.last + 1] == expected
