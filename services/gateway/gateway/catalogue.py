"""What the gateway decides about the catalogue: which rows are meant, in which order, what may be changed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from contracts.catalogue import LARGEST_ID, folded

RowType_co = TypeVar("RowType_co", covariant=True)
Expected = frozenset[int] | None
"""The revisions of which a row must have one to be changed; None when any will do."""

_ID = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_ENTITY_TAG = re.compile(r'(W/)?"([^"]*)"')
_ENTITY_TAGS = re.compile(rf"[\s,]*{_ENTITY_TAG.pattern}(?:\s*,[\s,]*{_ENTITY_TAG.pattern})*[\s,]*")
_REVISION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


class CatalogueError(Exception):
    """Why the catalogue cannot do what was asked."""


class TokenNotFoundError(CatalogueError):
    """There is no such token."""


class ScriptNotFoundError(CatalogueError):
    """There is no such script."""


class ActorNotFoundError(CatalogueError):
    """There is no such actor."""


class ActorExistsError(CatalogueError):
    """There is an actor of this name already."""


class TooManyScriptsError(CatalogueError):
    """The token has MAX_SCRIPTS scripts."""


class ChangedError(CatalogueError):
    """The row has none of the revisions that were expected; `revision` is the one that it has."""

    def __init__(self, revision: int) -> None:
        super().__init__("the row was changed")
        self.revision = revision


@dataclass(frozen=True)
class Kept(Generic[RowType_co]):
    """A row as it is kept, with the number of its changes; views are none."""

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
class WantedTokens:
    """Which tokens a list has, and in which order: all that every given one of these is true of.

    A blank text is as good as none: a form's empty field asks for nothing.
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
    """Return the id of a row, None when no row can have it: a positive integer as it is written, and no other way."""
    number = int(text) if _ID.fullmatch(text) else 0
    return number if 1 <= number <= LARGEST_ID else None


def entity_tag(revision: int) -> str:
    """Return a revision as a strong entity tag (RFC 9110, section 8.8.3)."""
    return f'"{revision}"'


def expected_revisions(if_match: Sequence[str]) -> Expected:
    """Return which revisions the If-Match fields of a request allow (RFC 9110, section 13.1.1).

    None when there are none, and for `*`: whether there is such a row is asked anyway. What is weak, or no tag of
    ours, is no revision's; what is no list of tags allows none.
    """
    field = ", ".join(if_match).strip()
    if not if_match or field == "*":
        return None
    if not _ENTITY_TAGS.fullmatch(field):
        return frozenset()
    tags = (tag for weak, tag in _ENTITY_TAG.findall(field) if not weak)
    return frozenset(int(tag) for tag in tags if _REVISION.fullmatch(tag))
