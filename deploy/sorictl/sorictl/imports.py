"""Compares a file's rows with the catalogue: which are new, which change something, which are in conflict."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts.catalogue import MAX_SCRIPTS, Actor, Script, document, folded
from sorictl.rows import TABLES, File, Row

Document = dict[str, Any]
Value = TypeVar("Value", Actor, Script)

UNTOLD = ("view_count", "reference_audio_url")
"""Fields that a token keeps when the file lacks them: they come from listeners and the API, not from the authors of
the catalogue."""


@dataclass(frozen=True)
class PresentRows:
    """The rows of the catalogue that the file's rows replace, refer to or may conflict with."""

    documents: Mapping[str, Mapping[int, Document]]
    """By table and id: the documents whose id is in the file."""
    tokens: Set[int]
    """The existing ones among the tokens that scripts of the file belong to."""
    scripts: Mapping[int, int]
    """Every script of those tokens, with its token."""
    names: Mapping[str, int]
    """By folded name: the ids of the actors who have the name of an actor in the file."""


@dataclass
class Changes:
    """What an import writes."""

    new: dict[str, list[Document]] = field(default_factory=lambda: {table: [] for table in TABLES})
    changed: dict[str, list[Document]] = field(default_factory=lambda: {table: [] for table in TABLES})
    same: Counter[str] = field(default_factory=Counter)
    touched: set[int] = field(default_factory=set)
    """Tokens that are not written but whose scripts are. This counts as a change of the token, as in the API."""


def changes(file: File, kept: PresentRows) -> Changes:
    """Work out what the rows of a file change; conflicts are added to the file's problems."""
    _check_names(file, kept)
    _check_scripts(file, kept)
    found = Changes()
    for table, rows in file.rows.items():
        for row in rows:
            _add(found, table, row, kept.documents[table].get(row.id))
    _touch(found, kept)
    return found


def _add(found: Changes, table: str, row: Row, before: Document | None) -> None:
    if before is None:
        found.new[table].append({**document(row.value), "revision": 1})
        return
    untold = {name: before[name] for name in UNTOLD if name in before and not row.gives(name)}
    after = {**before, **document(row.value.model_copy(update=untold))}
    if after == before:
        found.same[table] += 1
    else:
        found.changed[table].append({**after, "revision": before["revision"] + 1})


def _touch(found: Changes, kept: PresentRows) -> None:
    after = found.new["scripts"] + found.changed["scripts"]
    before = [kept.documents["scripts"][script["_id"]] for script in found.changed["scripts"]]
    written = {token["_id"] for token in found.new["tokens"] + found.changed["tokens"]}
    found.touched = {script["token_id"] for script in before + after} - written


def _check_names(file: File, kept: PresentRows) -> None:
    for row, value in _values(file, "actors", Actor):
        owner = kept.names.get(folded(value.name))
        if owner is not None and not file.names("actors", owner):
            file.refuse(row, "name", f"actor {owner} of the catalogue is called so")


def _check_scripts(file: File, kept: PresentRows) -> None:
    in_file = {row.id for row in file.rows["scripts"]}
    counts = Counter(token for script, token in kept.scripts.items() if script not in in_file)
    for row, value in _values(file, "scripts", Script):
        counts[value.token_id] += 1
        if value.token_id not in kept.tokens and not file.names("tokens", value.token_id):
            file.refuse(row, "token_id", f"there is no token {value.token_id}, neither here nor in the catalogue")
        elif counts[value.token_id] > MAX_SCRIPTS:
            file.refuse(row, "token_id", f"token {value.token_id} would have more than {MAX_SCRIPTS} scripts")


def _values(file: File, table: str, kind: type[Value]) -> Iterator[tuple[Row, Value]]:
    return ((row, row.value) for row in file.rows[table] if isinstance(row.value, kind))
