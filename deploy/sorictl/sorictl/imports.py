"""What becomes of a file's rows beside those that the catalogue has: what is new, what changes, what is in the way."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from contracts.catalogue import MAX_SCRIPTS, Actor, Script, document, folded
from sorictl.rows import TABLES, File, Row

Document = dict[str, Any]
Value = TypeVar("Value", Actor, Script)

UNTOLD = ("view_count", "reference_audio_url")
"""What a token keeps when its file has no such field: listeners and the API make them, not who writes the catalogue."""


@dataclass(frozen=True)
class Kept:
    """What the catalogue has of all that the file's rows have to do with."""

    documents: Mapping[str, Mapping[int, Document]]
    """By table and id: those with an id that is in the file."""
    tokens: Set[int]
    """Which there are of the tokens that scripts of the file belong to."""
    scripts: Mapping[int, int]
    """Every script of those tokens, with its token."""
    names: Mapping[str, int]
    """Who has the names that actors of the file have, by the name as it is compared."""


@dataclass
class Changes:
    """What an import writes."""

    new: dict[str, list[Document]] = field(default_factory=lambda: {table: [] for table in TABLES})
    changed: dict[str, list[Document]] = field(default_factory=lambda: {table: [] for table in TABLES})
    same: Counter[str] = field(default_factory=Counter)
    touched: set[int] = field(default_factory=set)
    """Tokens that are not written but whose scripts are: a change of theirs too, as when the API makes it."""


def changes(file: File, kept: Kept) -> Changes:
    """Work out what the rows of a file change; what is in their way is then among the file's problems."""
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


def _touch(found: Changes, kept: Kept) -> None:
    after = found.new["scripts"] + found.changed["scripts"]
    before = [kept.documents["scripts"][script["_id"]] for script in found.changed["scripts"]]
    written = {token["_id"] for token in found.new["tokens"] + found.changed["tokens"]}
    found.touched = {script["token_id"] for script in before + after} - written


def _check_names(file: File, kept: Kept) -> None:
    for row, value in _values(file, "actors", Actor):
        owner = kept.names.get(folded(value.name))
        if owner is not None and not file.names("actors", owner):
            file.refuse(row, "name", f"actor {owner} of the catalogue is called so")


def _check_scripts(file: File, kept: Kept) -> None:
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
