"""The rows of a catalogue file, each with its line, and the checks that need only the file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from contracts.addresses import CatalogueAddresses
from contracts.catalogue import S3_FIELDS, Actor, Script, Token, folded

TABLES: Mapping[str, type[Token | Script | Actor]] = {"actors": Actor, "tokens": Token, "scripts": Script}
"""By their names in PostgreSQL and MongoDB; a table comes after those that its rows refer to."""
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "actors": ("id", "name", "aliases"),
    "tokens": (
        *("id", "token_name", "actor_name", "category", "start_time", "end_time"),
        *("s3_textgrid_url", "s3_pitch_url", "s3_bgvoice_url", "youtube_url", "thumbnail_url"),
        *("view_count", "reference_audio_url"),
    ),
    "scripts": ("id", "token_id", "start_time", "end_time", "script", "translation"),
}
"""In the order in which they are written."""
WRONG_ADDRESS = "only files under references/ and CATALOGUE_PREFIX, or https addresses outside of the bucket"
LARGEST_VIEWS = 2**53 - 1
"""The largest integer that a browser reads exactly; MongoDB goes on counting from the imported number."""


@dataclass(frozen=True, order=True)
class Problem:
    """Something in the file that keeps all of it from being imported."""

    line: int
    said: str


@dataclass(frozen=True)
class Source:
    """The content of a file before it is validated."""

    rows: Mapping[str, list[Any]]
    """By table: the rows, each a dictionary if the file is valid."""
    line: Callable[[str, int, str | None], int]
    """The line of a table's nth row, or of one field of it."""
    strict: bool
    """Whether values have types of their own; in CSV all are text."""
    problems: list[Problem] = field(default_factory=list)
    """What kept parts of the file from being read at all."""


@dataclass(frozen=True)
class Row:
    """A row that is valid by itself."""

    table: str
    number: int
    value: Token | Script | Actor

    @property
    def id(self) -> int:
        """Its id, which the file gives."""
        return self.value.id

    def gives(self, name: str) -> bool:
        """Tell whether the file says anything about this field."""
        return name in self.value.model_fields_set


class File:
    """The valid rows of a file, and the problems of the others."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.problems = list(source.problems)
        self.rows = {table: list(self._valid(table)) for table in TABLES}
        self._named = {table: {str(_id(raw)) for raw in source.rows.get(table, [])} for table in TABLES}
        self._check_alone()

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))

    def names(self, table: str, row_id: int) -> bool:
        """Tell whether the file has such a row, valid or not."""
        return str(row_id) in self._named[table]

    def line(self, row: Row, name: str | None = None) -> int:
        """Return the line that a row begins in, or that one of its fields stands in."""
        return self._source.line(row.table, row.number, name)

    def refuse(self, row: Row, name: str, said: str) -> None:
        """Note that a field of a row does not fit."""
        self.problems.append(Problem(self.line(row, name), f"{row.table} {row.id}: {name}: {said}"))

    @property
    def have_addresses(self) -> bool:
        """Whether a token has an S3 address."""
        return any(getattr(row.value, name) for row in self.rows["tokens"] for name in S3_FIELDS)

    def check_addresses(self, addresses: CatalogueAddresses) -> None:
        """Note each S3 address that the catalogue may not have."""
        for row in self.rows["tokens"]:
            if isinstance(row.value, Token):
                for name in row.value.wrong_addresses(addresses):
                    self.refuse(row, name, WRONG_ADDRESS)

    def _valid(self, table: str) -> Iterator[Row]:
        for number, raw in enumerate(self._source.rows.get(table, [])):
            try:
                value = TABLES[table].model_validate(raw, strict=self._source.strict, by_alias=False, by_name=True)
            except ValidationError as error:
                self.problems += self._problems_of(table, number, raw, error)
            else:
                yield Row(table, number, value)

    def _problems_of(self, table: str, number: int, raw: Any, error: ValidationError) -> Iterator[Problem]:
        given = _id(raw)
        named = f"{table} {given}" if isinstance(given, int | str) else f"{table}, row {number + 1}"
        for each in error.errors(include_url=False, include_input=False):
            name = str(each["loc"][0]).removeprefix("_") if each["loc"] else None
            said = _plain(each["type"], each["msg"])
            line = self._source.line(table, number, name)
            yield Problem(line, f"{named}: {name}: {said}" if name else f"{named}: {said}")

    def _check_alone(self) -> None:
        for table in TABLES:
            self._check_unique(table, "id", lambda row: row.id)
        for row in self.rows["tokens"]:
            if isinstance(row.value, Token) and row.value.view_count > LARGEST_VIEWS:
                self.refuse(row, "view_count", "it is too large")
        self._check_unique("actors", "name", lambda row: folded(row.value.name) if isinstance(row.value, Actor) else "")

    def _check_unique(self, table: str, name: str, key: Callable[[Row], object]) -> None:
        seen: dict[object, Row] = {}
        for row in self.rows[table]:
            first = seen.setdefault(key(row), row)
            if first is not row:
                self.refuse(row, name, f"there is another one in line {self.line(first)}")


def _id(raw: Any) -> Any:
    return raw.get("id") if isinstance(raw, Mapping) else None


def _plain(kind: str, said: str) -> str:
    return {
        "extra_forbidden": "there is no such field",
        "missing": "it is missing",
        "model_type": "a row is an object",
        "finite_number": "it is no finite number",
    }.get(kind, said.removeprefix("Value error, "))
