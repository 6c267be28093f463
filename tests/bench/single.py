"""One recording at a time: from the start of the upload to the result, of Sori, a bare relay and the baseline in turn.

Sori's time counts without the analysis (50 ms); the relay asks for none. A round has all three within the same minute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench.load import Outcome, Plan
from tests.bench.report import Verdict, at_most, show_reasons, spread
from tests.bench.systems import ANALYSIS_SECONDS, BASELINE, RELAY, Systems
from tests.bench.throughput import RECORDING_BYTES, run_plan

MOST_OVER_RELAY = 2.0
_ANALYSIS_MS = {"ours": ANALYSIS_SECONDS * 1000, BASELINE: ANALYSIS_SECONDS * 1000, RELAY: 0.0}


@dataclass(frozen=True)
class Round:
    """What came of one run of each system, by its name."""

    outcomes: dict[str, Outcome]

    def ms(self, system: str) -> float:
        """The median ms from upload to result without the analysis; infinite when there was none."""
        times = self.outcomes[system].job_ms
        return median(times) - _ANALYSIS_MS[system] if times else float("inf")

    @property
    def ratio(self) -> float:
        """Our time over the relay's."""
        return self.ms("ours") / self.ms(RELAY)


def rounds(under_measure: Systems, jobs: int, count: int, seeds: Iterator[int]) -> Iterator[Round]:
    """Yield `count` rounds with `jobs` jobs of each system, each begun when the one before it has ended."""
    for _ in range(count):
        plan = Plan("", jobs, 1, next(seeds), size_bytes=RECORDING_BYTES)
        yield Round({name: run_plan(under_measure, name, plan).outcome for name in ("ours", RELAY, BASELINE)})


def show(console: Console, found: Sequence[Round]) -> list[Verdict]:
    """Each system's time; the verdict on ours over the relay's."""
    title = "One at a time: ms from upload to result, without the analysis"
    table = Table("", "median of each round (spread)", "fastest job", "slowest job", title=title)
    for name, analysis_ms in _ANALYSIS_MS.items():
        jobs = [ms - analysis_ms for each in found for ms in each.outcomes[name].job_ms]
        ends = (f"{min(jobs):,.0f}", f"{max(jobs):,.0f}") if jobs else ("–", "–")
        table.add_row(name, spread([each.ms(name) for each in found]), *ends)
    console.print(table)
    lost = [reason for each in found for reason in each.outcomes["ours"].lost]
    show_reasons(console, lost)
    figure = "one at a time: ms without the analysis over a bare relay's"
    return [at_most(figure, [each.ratio for each in found], MOST_OVER_RELAY, clean=not lost)]
