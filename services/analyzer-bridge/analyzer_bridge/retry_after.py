"""The Retry-After header (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_REST = 3600.0
"""The longest wait that is believed, in seconds; longer ones are cut to it."""


def seconds_asked_for(header: str) -> float | None:
    """Return how many seconds to wait, from either form of the header; None when it has neither."""
    value = header.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), LONGEST_REST)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a number beyond any calendar
        return None
    # The obsolete date formats have no time zone; all dates in HTTP are GMT (section 5.6.7).
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_REST)
