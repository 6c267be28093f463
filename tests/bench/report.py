"""Figures beside their targets: the lines of the last table, which is printed and kept as Markdown."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Verdict:
    """One figure beside its target."""

    figure: str
    measured: str
    target: str
    met: bool


def at_least(figure: str, values: Sequence[float], bound: float, *, clean: bool = True) -> Verdict:
    """A verdict on the median of `values`, which must reach the bound; missed whatever they are when not `clean`."""
    met = clean and bool(values) and median(values) >= bound
    return Verdict(figure, _measured(values, clean=clean), f"≥ {bound:g}", met)


def at_most(figure: str, values: Sequence[float], bound: float, *, clean: bool = True) -> Verdict:
    """A verdict on the median of `values`, which must not exceed the bound; missed when not `clean`."""
    met = clean and bool(values) and median(values) <= bound
    return Verdict(figure, _measured(values, clean=clean), f"≤ {bound:g}", met)


def spread(values: Sequence[float]) -> str:
    """The median, and the least and the greatest when there are several: `1.52 (1.38–1.61)`."""
    if not values:
        return "nothing"
    middle = _shown(median(values))
    return middle if len(values) == 1 else f"{middle} ({_shown(min(values))}–{_shown(max(values))})"


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Every figure with its target: met, or MISSED."""
    table = Table("figure", "median (least–greatest)", "target", "", title="Targets")
    for verdict in verdicts:
        word = "[green]met[/green]" if verdict.met else "[bold red]MISSED[/bold red]"
        table.add_row(verdict.figure, verdict.measured, verdict.target, word)
    console.print(table)


def show_reasons(console: Console, reasons: Sequence[str]) -> None:
    """Why jobs were lost: each reason once, five of them at most."""
    for reason in sorted(set(reasons))[:5]:
        console.print(f"lost: {reason}", markup=False)


def write_markdown(file: Path, verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts with machine and date, as docs/performance.md has them."""
    lines = [
        f"{machine()}, {date.today().isoformat()}.",  # noqa: DTZ011 - the reader's own date
        "",
        "| figure | median (least–greatest) | target | |",
        "| --- | --- | --- | --- |",
        *(f"| {v.figure} | {v.measured} | {v.target} | {'met' if v.met else '**missed**'} |" for v in verdicts),
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine() -> str:
    """What the figures were measured on, in a few words."""
    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _measured(values: Sequence[float], *, clean: bool) -> str:
    return spread(values) if clean else f"{spread(values)}, but jobs of ours were lost"


def _shown(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:,.0f}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
