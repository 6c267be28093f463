"""Shows a job's result readably, whatever an analysis server puts into it."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from local_stack import comparing
from local_stack.sparklines import is_series, sparkline

MOST_ROWS = 40
LONGEST_TEXT = 200


def render_job(job: Mapping[str, Any]) -> RenderableType:
    """A panel with everything that the last state of a job says."""
    if job["status"] == "completed":
        return Panel(render_result(job.get("result") or {}), title="Result", border_style="green", expand=False)
    error = job.get("error") or {"message": job["message"], "code": job["stage"]}
    held = "\nA service could not handle it and set it aside; the reason is in its log: make logs"
    text = Text(f"{error['message']}\n{error['code']}{held if job['stage'] == 'held' else ''}")
    title = "Held" if job["stage"] == "held" else job["status"].capitalize()
    return Panel(text, title=title, border_style="red", expand=False)


def render_result(result: Mapping[str, Any]) -> RenderableType:
    """A comparison first, if there is one; then single values as a table, and lists as tables or as small charts."""
    comparison, rest = comparing.split(result)
    single, blocks = Table.grid(padding=(0, 2)), list[RenderableType]()
    single.add_column(style="bold")
    for name, value in _flattened(rest):
        if _is_list_of(value, Mapping):
            more = f" (the first {MOST_ROWS} of {len(value)})" if len(value) > MOST_ROWS else ""
            blocks += [Text(f"{name}{more}", style="bold"), _rows_table(value[:MOST_ROWS])]
        else:
            single.add_row(name, _shown(value))
    return Group(*comparing.render(comparison), single, *blocks)


def _flattened(result: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in result.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{name}.")
        else:
            yield name, value


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _shown(value: Any) -> Text:
    if value is None:
        return Text("–", style="dim")
    if is_series(value):
        return _series(value)
    if value in ([], {}):
        return Text("none", style="dim")
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return Text(shown if len(shown) <= LONGEST_TEXT else shown[:LONGEST_TEXT] + "…")


def _series(values: list[float | None]) -> Text:
    known = [value for value in values if value is not None]
    text = Text(f"{min(known):g} … {max(known):g}, {len(values)} values", style="dim")
    if values == sorted(known):  # such as the times of another series: a chart would show nothing
        return text
    return Text(sparkline(values), style="cyan").append("\n").append(text)


def _rows_table(rows: list[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*columns, header_style="dim", box=None)
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    return table
