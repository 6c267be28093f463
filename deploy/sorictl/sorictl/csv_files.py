"""One table of the catalogue as CSV, as PostgreSQL's `COPY … TO … CSV HEADER` writes it.

An empty field is NULL; an array is PostgreSQL's literal, {a,"b c"} (its manual, sections COPY and 8.15.6).
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from contracts.catalogue import Actor, Script, Token
from sorictl.rows import COLUMNS, TABLES, Problem, Source

_ELEMENT = r"""\s*(?:"(?:[^"\\]|\\.)*"\s*|(?:[^\s",{}\\]|\\.)(?:[^",{}\\]|\\.)*)"""
_ELEMENTS = re.compile(_ELEMENT, re.DOTALL)
_ARRAY = re.compile(rf"\{{(?:{_ELEMENT}(?:,{_ELEMENT})*|\s*)\}}", re.DOTALL)
_PLAIN = re.compile(r"[^\s\",{}\\]+(?: [^\s\",{}\\]+)*")


class _NoArrayError(ValueError):
    """The text is not an array of texts."""


def read(text: str) -> Source:
    """Read a file's text; the header's columns tell which table it is."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
    except csv.Error as error:
        return _unreadable(str(error))
    table = _table(header)
    if table is None:
        return _unreadable("the columns are those of no table: " + ", ".join(header))
    if wrong := _wrong_columns(TABLES[table], header):
        return _unreadable(f"{table}: {wrong}")
    return _rows(table, header, lines)


def write(table: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the text row by row, the header first."""
    yield _line(COLUMNS[table])
    for row in rows:
        yield _line(_text(row[column]) for column in COLUMNS[table])


def parse_array(text: str) -> list[str]:
    """Read an array of texts; ValueError when it is not one, or contains NULL."""
    if not _ARRAY.fullmatch(text):
        raise _NoArrayError('an array is written {a,"b c"}')
    return [_element(match[0].strip()) for match in _ELEMENTS.finditer(text[1:-1])]


def written_array(elements: Sequence[str]) -> str:
    """Write an array of texts."""
    return "{" + ",".join(map(_quoted, elements)) + "}"


def _rows(table: str, header: list[str], lines: Any) -> Source:
    rows: list[dict[str, Any]] = []
    starts: list[int] = []
    problems: list[Problem] = []
    while True:
        line = lines.line_num + 1
        try:
            cells = next(lines, None)
        except csv.Error as error:
            problems.append(Problem(line, f"{table}: {error}"))
            break
        if cells is None:
            break
        if not cells:
            continue
        if len(cells) != len(header):
            problems.append(Problem(line, f"{table}: {len(cells)} fields, and there are {len(header)} columns"))
            continue
        try:
            rows.append({name: _value(name, cell) for name, cell in zip(header, cells, strict=True) if cell})
            starts.append(line)
        except _NoArrayError as error:
            problems.append(Problem(line, f"{table}: aliases: {error}"))
    return Source({table: rows}, lambda _, number, __: starts[number], False, problems)


def _table(header: Sequence[str]) -> str | None:
    told_by = {"token_name": "tokens", "script": "scripts", "name": "actors"}
    return next((table for column, table in told_by.items() if column in header), None)


def _wrong_columns(model: type[Token | Script | Actor], header: Sequence[str]) -> str | None:
    if unknown := [name for name in header if name not in model.model_fields]:
        return f"there is no column {', '.join(unknown)}"
    if missing := [name for name, field in model.model_fields.items() if field.is_required() and name not in header]:
        return f"the column {', '.join(missing)} is missing"
    return "a column stands twice in the header" if len(set(header)) < len(header) else None


def _value(name: str, cell: str) -> Any:
    return parse_array(cell) if name == "aliases" else cell


def _element(written: str) -> str:
    if written.upper() == "NULL":
        raise _NoArrayError("NULL is no alias")
    return re.sub(r"\\(.)", r"\1", written[1:-1] if written.startswith('"') else written, flags=re.DOTALL)


def _quoted(element: str) -> str:
    if _PLAIN.fullmatch(element) and element.upper() != "NULL":
        return element
    return '"' + re.sub(r'(["\\])', r"\\\1", element) + '"'


def _text(value: Any) -> str:
    if value is None:
        return ""
    return written_array(value) if isinstance(value, list) else str(value)


def _line(cells: Iterable[str]) -> str:
    written = io.StringIO()
    # Only the characters of the line's end are quoted in a cell, and a reader takes either for one.
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return written.getvalue().removesuffix("\r\n") + "\n"


def _unreadable(said: str) -> Source:
    return Source({}, lambda *_: 1, False, [Problem(1, said)])
