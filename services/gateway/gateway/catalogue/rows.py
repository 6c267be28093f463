"""The catalogue's rows: their ids and revisions, which of them a list shows, and why a change is refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from contracts.catalogue import LARGEST_ID, folded

RowType_co = TypeVar("RowType_co", covariant=True)
Expected = frozenset[int] | None
"""The revisions that a row may have for a change to be made; None allows every revision."""

_ID = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
_ENTITY_TAGS = re.compile(rf"[\s,]*{_ENTITY_TAG.pattern}(?:\s*,[\s,]*{_ENTITY_TAG.pattern})*[\s,]*")
_REVISION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class CatalogueError(Exception):
    """The catalogue cannot do what was asked; each reason is a class of its own."""


class TokenNotFoundError(CatalogueError):
    """There is no such token."""


class ScriptNotFoundError(CatalogueError):
    """There is no such script."""


class ActorNotFoundError(CatalogueError):
    """There is no such actor."""


class ActorExistsError(CatalogueError):
    """Another actor has this name already."""


class TooManyScriptsError(CatalogueError):
    """The token has MAX_SCRIPTS scripts already."""


class ChangedError(CatalogueError):
    """The row is not at one of the expected revisions but at `revision`."""

    def __init__(self, revision: int) -> None:
        super().__init__("the row was changed")
        self.revision = revision


@dataclass(frozen=True)
class RevisedRow(Generic[RowType_co]):
    """A row with its revision, which counts its changes; a view is not a change."""

    row: RowType_co
    revision: int

    @property
    def etag(self) -> str:
        """Return the revision as a strong entity tag (RFC 9110, section 8.8.3)."""
        return entity_tag(self.revision)


class Order(StrEnum):
    """In which order tokens are listed; ids decide between equals."""

    ID = "id"
    LATEST = "latest"
    POPULAR = "popular"


@dataclass(frozen=True)
class TokenFilter:
    """Which tokens a list shows, and in which order: those that match every field that is given.

    A blank text counts as not given, because a form sends its empty fields too.
    """

    category: str | None = None
    actor: str | None = None
    search: str | None = None
    order: Order = Order.ID

    def __post_init__(self) -> None:
        for name in ("category", "actor", "search"):
            text = getattr(self, name)
            object.__setattr__(self, name, text.strip() or None if text and folded(text) else None)


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    skip: int
    limit: int


def row_id(text: str) -> int | None:
    """Return the id that `text` spells, None when no row can have it; an id has one spelling, so "07" is none."""
    number = int(text) if _ID.fullmatch(text) else 0
    return number if 1 <= number <= LARGEST_ID else None


def entity_tag(revision: int) -> str:
    """Return a revision as a strong entity tag (RFC 9110, section 8.8.3)."""
    return f'"{revision}"'


def expected_revisions(if_match: Sequence[str]) -> Expected:
    """Return which revisions the If-Match fields of a request allow (RFC 9110, section 13.1.1).

    None, which allows all, without such a field and for `*`: that the row exists is checked anyway. Weak tags, and
    tags that are not ours, match no revision. A field that is not a list of tags allows no revision at all.
    """
    field = ", ".join(if_match).strip()
    if not if_match or field == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(field):
        return frozenset()
    tags = (tag for weak, tag in _ENTITY_TAG.findall(field) if not weak)
    return frozenset(int(tag) for tag in tags if _REVISION.fullmatch(tag))
