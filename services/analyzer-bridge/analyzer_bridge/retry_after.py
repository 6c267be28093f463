"""The Retry-After header (RFC 9110, section 10.2.3)."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_REST = 3600.0
"""The most that is believed, seconds."""


def seconds_asked_for(header: str) -> float | None:
    """Return the seconds that a server asks for, in either form of the header; None when it does not."""
    value = header.strip()
    if value.isascii() and value.isdecimal():
        return min(float(value), LONGEST_REST)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # the latter for numbers beyond any calendar
        return None
    # A date in the obsolete forms has no zone; HTTP's dates are all GMT (section 5.6.7).
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - datetime.now(UTC)).total_seconds(), 0.0), LONGEST_REST)
