"""Pages of jobs, the newest first: which jobs a list shows, and where its next page begins."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field

from contracts.job import Status

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BARE_PLUS = re.compile(r"(\d{4}-\d\d-\d\d[Tt _]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?) (\d\d:?\d\d)")
_CURSOR = re.compile(r"([0-9]{1,14})/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")


@dataclass(frozen=True)
class Cursor:
    """The last job of a page. The next page begins after it, so jobs that are created meanwhile shift nothing."""

    created_at: datetime
    job_id: str

    @property
    def text(self) -> str:
        """Return the cursor as text for an address."""
        milliseconds = (self.created_at - _EPOCH) // timedelta(milliseconds=1)
        return base64.urlsafe_b64encode(f"{milliseconds}/{self.job_id}".encode()).decode().rstrip("=")

    @classmethod
    def parsed(cls, text: str) -> "Cursor":
        """Read what `text` gave; ValueError when it is anything else."""
        decoded = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        match = _CURSOR.fullmatch(decoded)
        if match is None:
            raise ValueError("no cursor")
        return cls(_EPOCH + timedelta(milliseconds=int(match[1])), match[2])


def in_utc(moment: datetime) -> datetime:
    """Return the same moment in UTC; ValueError when that is outside the calendar."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of range") from None


def with_plus(given: object) -> object:
    """Return a moment whose `+09:00` came as ` 09:00`: an address has to write `+` as %2B, or it means a space."""
    return _BARE_PLUS.sub(r"\1+\2", given) if isinstance(given, str) and _BARE_PLUS.fullmatch(given) else given


@dataclass(frozen=True)
class Condition:
    """What a filter asks of a job document: `operator`, one of MongoDB's, holds of `field` and the filter's value."""

    field: str
    operator: str


MetadataAsked = Sequence[tuple[str, str]]
"""What a list's jobs must have in their metadata: each key at the top, and its value as it is written in an address."""
Moment = Annotated[AwareDatetime, BeforeValidator(with_plus), AfterValidator(in_utc)]


@dataclass(frozen=True)
class JobFilter:
    """Which jobs a list shows: those that match every field that is given.

    A field is all that there is to a filter: it is the query parameter, the condition, and a part of the next page's
    address.
    """

    status: Annotated[
        Status | None,
        Field(description="Only jobs of this status"),
        Condition("view.status", "$eq"),
    ] = None
    token_id: Annotated[
        str | None,
        Field(description="Only jobs of this token"),
        Condition("token_id", "$eq"),
    ] = None
    created_after: Annotated[
        Moment | None,
        Field(description="Only jobs that came at this moment or later (RFC 3339)"),
        Condition("created_at", "$gte"),
    ] = None
    created_before: Annotated[
        Moment | None,
        Field(description="Only jobs that came before this moment (RFC 3339)"),
        Condition("created_at", "$lt"),
    ] = None

    def given(self) -> dict[str, Any]:
        """Return the fields that are given, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def conditions(self) -> dict[str, dict[str, Any]]:
        """Return what is asked of each field of a document: values by operator."""
        found: dict[str, dict[str, Any]] = {}
        for name, value in self.given().items():
            condition = _CONDITIONS[name]
            found.setdefault(condition.field, {})[condition.operator] = value
        return found

    def parameters(self) -> dict[str, str]:
        """Return the query parameters that ask for the same jobs."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in self.given().items()
        }


_CONDITIONS = {
    name: next(part for part in get_args(hint) if isinstance(part, Condition))
    for name, hint in get_type_hints(JobFilter, include_extras=True).items()
}
