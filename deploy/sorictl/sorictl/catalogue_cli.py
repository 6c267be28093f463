"""The commands of `sorictl catalogue`: their options, and what they print."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from sorictl import csv_files, json_files
from sorictl.errors import FileError, InterruptedByUserError, RefusedError
from sorictl.imports import Changes
from sorictl.mongodb import Database, connected
from sorictl.rendering import printable
from sorictl.rows import TABLES, File, Problem, Source
from sorictl.screen import EXIT_STATUSES, err, out, progress
from sorictl.settings import AddressSettings, DatabaseSettings, read_settings

MOST_PROBLEMS = 20
STANDARD_OUTPUT = Path("-")

catalogue_app = typer.Typer(
    help="Tokens, scripts and actors (in MONGODB_URL), from files and to files.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
)


@catalogue_app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="JSON, or one table as PostgreSQL's COPY … CSV HEADER writes it.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it and say what would change.")] = False,
) -> None:
    """Take all rows of a file in, or none: a row replaces the one that has its id.

    A token keeps its views and its reference audio when the file does not speak of them. If tokens have S3 addresses,
    S3_BUCKET_NAME and CATALOGUE_PREFIX say which of them may be.
    """
    rows = File(_source(_text(file)))
    if not len(rows):
        _refuse(file, rows.problems)
    if rows.have_addresses:
        rows.check_addresses(read_settings(AddressSettings).catalogue_addresses)
    with _database() as database, progress("Importing", len(rows)) as show_done:
        changes = database.apply(rows, dry_run=dry_run, show_done=show_done)
    _refuse(file, rows.problems)
    did = "Would import" if dry_run else "Imported"
    out.print(f"{did} {file}: {_summary(rows, changes)}.", markup=False, soft_wrap=True)


@catalogue_app.command("export")
def export_file(
    file: Annotated[Path, typer.Argument(help="Where to: replaced once all is written. - is standard output.")],
    *,
    table: Annotated[
        Literal["actors", "tokens", "scripts"] | None, typer.Option(help="One table, as CSV; else all, as JSON.")
    ] = None,
) -> None:
    """Write all rows into a file that `import` takes."""
    tables = [table] if table else list(TABLES)
    with _database() as database, database.tables(tables) as rows, progress("Exporting", database.count(tables)) as bar:
        counted = _Counted(rows, bar)
        pieces = csv_files.write(table, counted.rows[table]) if table else json_files.write(counted.rows)
        _write(file, pieces)
    if file != STANDARD_OUTPUT:
        out.print(f"Exported {counted.done:,} rows to {file}.", markup=False, soft_wrap=True)


class _Counted:
    """Counts rows as they pass."""

    def __init__(self, tables: Mapping[str, Iterable[Mapping[str, Any]]], show_done: Callable[[int], None]) -> None:
        self.done = 0
        self.rows = {table: self._counted(rows) for table, rows in tables.items()}
        self._show_done = show_done

    def _counted(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        for row in rows:
            yield row
            self.done += 1
            self._show_done(self.done)


@contextmanager
def _database() -> Iterator[Database]:
    url = str(read_settings(DatabaseSettings).mongodb_url)
    try:
        with connected(url) as database:
            yield database
    except KeyboardInterrupt:
        raise InterruptedByUserError("interrupted; nothing was changed.") from None


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(f"{file}:{line}: this is no UTF-8 text; nothing was imported.") from None


def _source(text: str) -> Source:
    return json_files.read(text) if text.lstrip()[:1] in ("{", "[") else csv_files.read(text)


def _refuse(file: Path, problems: list[Problem]) -> None:
    if not problems:
        return
    shown = sorted(problems)[:MOST_PROBLEMS]
    for problem in shown:
        err.print(printable(f"{file}:{problem.line}: {problem.said}"), markup=False, soft_wrap=True)
    more = f" and {len(problems) - len(shown):,} more" if len(problems) > len(shown) else ""
    raise RefusedError(f"nothing was imported, because of {'these' if more else 'this'}{more}.")


def _summary(rows: File, changes: Changes) -> str:
    parts = [
        f"{table} {len(changes.new[table]):,} new, {len(changes.changed[table]):,} changed, "
        f"{changes.same[table]:,} the same"
        for table in TABLES
        if rows.rows[table]
    ]
    return "; ".join(parts) or "it has no rows"


def _write(file: Path, pieces: Iterable[str]) -> None:
    if file == STANDARD_OUTPUT:
        sys.stdout.writelines(pieces)
        return
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8", newline="") as written:
            _write_safely(written, pieces)
        draft.replace(file)
    except OSError as error:
        raise FileError(f"{file} cannot be written: {error.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _write_safely(written: IO[str], pieces: Iterable[str]) -> None:
    written.writelines(pieces)
    written.flush()
    os.fsync(written.fileno())
