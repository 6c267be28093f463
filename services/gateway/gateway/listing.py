"""Pages of jobs, the newest first: which jobs are wanted, and where a page goes on."""

import base64
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from contracts.job import Status

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(r"([0-9]{1,14})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


@dataclass(frozen=True)
class Place:
    """A job's place in the order: pages go on after it, so that jobs that come meanwhile move nothing."""

    created_at: datetime
    job_id: str

    @property
    def cursor(self) -> str:
        """Return the place as text for an address."""
        milliseconds = (self.created_at - _EPOCH) // timedelta(milliseconds=1)
        return base64.urlsafe_b64encode(f"{milliseconds}/{self.job_id}".encode()).decode().rstrip("=")

    @classmethod
    def at(cls, cursor: str) -> "Place":
        """Read what `cursor` gave; ValueError when it is anything else."""
        text = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise ValueError("no cursor")
        return cls(_EPOCH + timedelta(milliseconds=int(match[1])), match[2])


@dataclass(frozen=True)
class Wanted:
    """Which jobs a list has: all that every given one of these is true of."""

    status: Status | None = None
    token_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; ValueError when that lies outside the calendar."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None
