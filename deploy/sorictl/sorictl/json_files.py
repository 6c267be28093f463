"""The catalogue as JSON: {"actors": [row, …], "tokens": [row, …], "scripts": [row, …]}."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import json_source_map

from sorictl.rows import TABLES, Problem, Source

_LONG_NUMBER = re.compile(r"[0-9]{20,}")
"""More digits than any field takes; Python refuses to read integers of thousands of digits."""


class _Repeating(dict[str, Any]):
    """An object in which a name stands twice, so nobody knows which of the values is meant."""


def read(text: str) -> Source:
    """Read a file's text; errors in its JSON are among the problems."""
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        return _unreadable(error.lineno, error.msg)
    except RecursionError:
        return _unreadable(1, "it is nested too deeply")
    return _source(document, _Lines(text))


def write(tables: Mapping[str, Iterable[Mapping[str, Any]]]) -> Iterator[str]:
    """Yield the text piece by piece, one row per line; fields without a value are absent, as in the API's answers."""
    separator = "{"
    for table, rows in tables.items():
        yield f"{separator}\n{json.dumps(table)}: ["
        comma = ""
        for row in rows:
            given = {name: value for name, value in row.items() if value is not None}
            yield f"{comma}\n{json.dumps(given, ensure_ascii=False)}"
            comma = ","
        yield "\n]"
        separator = ","
    yield "\n}\n"


def _source(document: Any, lines: "_Lines") -> Source:
    if not isinstance(document, dict):
        return _unreadable(1, f"it is no object with {', '.join(TABLES)}")
    problems = []
    rows: dict[str, list[Any]] = {}
    for table, given in document.items():
        if table not in TABLES:
            problems.append(
                Problem(lines.of(f"/{table}"), f"{table}: there is no such table, only {', '.join(TABLES)}")
            )
        elif not isinstance(given, list):
            problems.append(Problem(lines.of(f"/{table}"), f"{table}: it is no list of rows"))
        else:
            rows[table] = given
            problems += [
                Problem(lines.of(f"/{table}/{number}"), f"{table}, row {number + 1}: a name stands twice in it")
                for number, row in enumerate(given)
                if isinstance(row, _Repeating)
            ]
    if isinstance(document, _Repeating):
        problems.append(Problem(1, "a table stands twice in it"))
    return Source(rows, lambda table, number, name: lines.of(f"/{table}/{number}", name), True, problems)


class _Lines:
    """The line of each value; worked out only when something is wrong, because it takes longer than all the rest."""

    def __init__(self, text: str) -> None:
        self._text = text

    def of(self, pointer: str, name: str | None = None) -> int:
        """Return the line of a value, or of one field in it; of the value when the field is not there."""
        found = self._entries.get(f"{pointer}/{name}") or self._entries.get(pointer)
        return found.value_start.line + 1 if found else 1

    @cached_property
    def _entries(self) -> Mapping[str, Any]:
        try:
            return dict(json_source_map.calculate(_LONG_NUMBER.sub("0", self._text)))
        except RecursionError:
            return {}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else _Repeating(found)


def _integer(digits: str) -> float:
    """Return an integer, or infinity for a long one: like NaN, that is refused with its field, which has a line."""
    return math.inf if _LONG_NUMBER.search(digits) else int(digits)


def _unreadable(line: int, said: str) -> Source:
    return Source({}, lambda *_: line, True, [Problem(line, said)])
