"""Shows the measurements: one table for each, and one of the targets, met or missed."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.analysis import SECONDS, AnalysisTimes
from tests.bench.large_uploads import UPLOADS, LargeRun
from tests.bench.meter import MIB
from tests.bench.systems import ANALYSIS_SECONDS, BASELINE
from tests.bench.throughput import AT_ONCE, Pair, Run, above_analysis_ms, median_cpu_ms

MOST_ANALYSIS_SECONDS = 1.5
LEAST_RATIO = 1.5
MOST_MS_ABOVE_ANALYSIS = 100
MOST_MIB_ABOVE_IDLE = 100
LEAST_SHARE_OF_DIRECT = 0.6


@dataclass(frozen=True)
class Verdict:
    """One figure beside its target."""

    figure: str
    measured: str
    target: str
    met: bool


def show_analysis(console: Console, times: AnalysisTimes) -> list[Verdict]:
    """The analysis server's own work on one core; the verdict on the median analysis."""
    title = f"One analysis of {SECONDS:g} s of speech: seconds of one core"
    table = Table("", "median", "fastest", "slowest", title=title)
    figures = (times.median, min(times.analyses), max(times.analyses))
    table.add_row("with scripts, the reference kept", *(f"{seconds:.2f}" for seconds in figures))
    hard = (median(times.hard), min(times.hard), max(times.hard))
    table.add_row("with other speech, unknown words and a line left out", *(f"{seconds:.2f}" for seconds in hard))
    table.add_row("hearing the reference, once", f"{times.reference:.2f}")
    console.print(table)
    met = times.median <= MOST_ANALYSIS_SECONDS
    figure = f"analysis of {SECONDS:g} s with scripts and reference, s of one core"
    return [Verdict(figure, f"{times.median:.2f}", f"≤ {MOST_ANALYSIS_SECONDS}", met)]


def show_throughput(console: Console, pairs: Sequence[Pair]) -> list[Verdict]:
    """The rounds and the CPU table; the verdict on the median of the pairs' ratios."""
    _show_rounds(console, pairs)
    _show_cpu(console, [pair.ours for pair in pairs], [pair.baseline for pair in pairs])
    ratio = median(pair.ratio for pair in pairs)
    clean = not any(pair.ours.outcome.lost or pair.ours.outcome.fell_back for pair in pairs)
    measured = f"{ratio:.2f}" if clean else f"{ratio:.2f}, but jobs of ours were lost"
    figure = f"jobs/s over the baseline's, {AT_ONCE} at a time, median of {len(pairs)}"
    return [Verdict(figure, measured, f"≥ {LEAST_RATIO}", clean and ratio >= LEAST_RATIO)]


def show_one_at_a_time(console: Console, pair: Pair) -> list[Verdict]:
    """Both systems' time from upload to result above the analysis server's own; the verdict on ours."""
    table = Table("", "median", "fastest", "slowest", "jobs", title="One at a time: ms above the analysis itself")
    for name, run in (("ours", pair.ours), (BASELINE, pair.baseline)):
        times = [ms - ANALYSIS_SECONDS * 1000 for ms in run.outcome.job_ms]
        figures = [median(times), min(times), max(times)] if times else []
        shown = [f"{figure:,.0f}" for figure in figures] or ["–"] * 3
        table.add_row(name, *shown, str(len(times)))
    console.print(table)
    above = above_analysis_ms(pair.ours)
    met = above <= MOST_MS_ABOVE_ANALYSIS and not pair.ours.outcome.lost
    return [Verdict("one at a time, ms above analysis", f"{above:.0f}", f"≤ {MOST_MS_ABOVE_ANALYSIS}", met)]


def show_large(console: Console, runs: Sequence[LargeRun], idle: dict[str, int], size_bytes: int) -> list[Verdict]:
    """Throughput beside direct parts and peak memory above idle; a verdict on each."""
    title = f"{UPLOADS} uploads of {size_bytes // MIB} MiB at once"
    table = Table("round", "ours MiB/s", "direct MiB/s", "share", title=title)
    for name in idle:
        table.add_column(f"{name} MiB: idle → peak")
    table.add_column("to last result")
    table.add_column("lost")
    for number, run in enumerate(runs, 1):
        memory = [f"{idle[name] / MIB:.0f} → {run.peak[name] / MIB:.0f}" for name in idle]
        speeds = (f"{run.ours:.0f}", f"{run.direct:.0f}", f"{run.ratio:.2f}")
        table.add_row(str(number), *speeds, *memory, f"{run.outcome.seconds:.1f} s", str(len(run.outcome.lost)))
    console.print(table)
    _show_reasons(console, [reason for run in runs for reason in run.outcome.lost])
    console.print(f"Memory was looked at {min(run.samples_per_second for run in runs):.0f} times a second or more.")
    return _large_verdicts(runs, idle)


def show_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Every figure with its target: met, or MISSED."""
    table = Table("figure", "measured", "target", "", title="Targets")
    for verdict in verdicts:
        word = "[green]met[/green]" if verdict.met else "[bold red]MISSED[/bold red]"
        table.add_row(verdict.figure, verdict.measured, verdict.target, word)
    console.print(table)


def _show_rounds(console: Console, pairs: Sequence[Pair]) -> None:
    title = f"Jobs per second, {AT_ONCE} at a time, 156 KiB each"
    table = Table("round", "ours", BASELINE, "ratio", "ours: lost", f"{BASELINE}: lost, fell back*", title=title)
    for number, pair in enumerate(pairs, 1):
        ours, theirs = pair.ours.outcome, pair.baseline.outcome
        rates = (f"{ours.jobs_per_second:.1f}", f"{theirs.jobs_per_second:.1f}", f"{pair.ratio:.2f}")
        lost = (str(len(ours.lost) + ours.fell_back), f"{len(theirs.lost)}, {theirs.fell_back}")
        table.add_row(str(number), *rates, *lost)
    console.print(table)
    console.print(
        "* its webhook came before the 90 % was written, so its stream never ends; counted as done at once, "
        "to the baseline's good."
    )
    _show_reasons(console, [reason for pair in pairs for reason in pair.ours.outcome.lost])


def _show_cpu(console: Console, ours: list[Run], baseline: list[Run]) -> None:
    title = "CPU ms per job, median of the rounds"
    table = Table("process", "while ours works", f"while the {BASELINE} works", title=title)
    columns = (median_cpu_ms(ours), median_cpu_ms(baseline))
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:.1f}" for column in columns))
    table.add_section()
    table.add_row("all of these", *(f"{sum(column.values()):.1f}" for column in columns))
    for row, figure in (
        ("other programs here", lambda run: run.others_ms_per_job),
        ("taken by the host", lambda run: run.stolen_ms_per_job),
    ):
        table.add_row(row, *(f"{median(map(figure, runs)):.1f}" for runs in (ours, baseline)))
    console.print(table)


def _show_reasons(console: Console, reasons: Sequence[str]) -> None:
    for reason in sorted(set(reasons))[:5]:
        console.print(f"lost: {reason}", markup=False)


def _large_verdicts(runs: Sequence[LargeRun], idle: dict[str, int]) -> list[Verdict]:
    lost = any(run.outcome.lost for run in runs)
    verdicts = []
    for name, at_rest in idle.items():
        above = max(run.peak[name] for run in runs) - at_rest
        met = above <= MOST_MIB_ABOVE_IDLE * MIB and not lost
        figure = f"{name}: peak MiB above idle, large uploads"
        verdicts.append(Verdict(figure, f"{above / MIB:.0f}", f"≤ {MOST_MIB_ABOVE_IDLE}", met))
    share = median(run.ratio for run in runs)
    figure = f"large uploads' throughput over direct parts', median of {len(runs)}"
    met = share >= LEAST_SHARE_OF_DIRECT and not lost
    return [*verdicts, Verdict(figure, f"{share:.2f}", f"≥ {LEAST_SHARE_OF_DIRECT}", met)]
