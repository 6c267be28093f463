"""How long an upload takes to be accepted, beside a direct put of the same bytes into the same S3.

156 KiB each, 16 at a time: every slot sends its next recording once the one before was accepted, so what follows an
upload (decoding, analysis, webhook) competes for the machine as it does under load. Both sides use one HTTP library.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from tests.bench import meter, programs
from tests.bench.large_uploads import empty_bucket_after
from tests.bench.load import Outcome, Plan
from tests.bench.peers.direct_puts import PutPlan
from tests.bench.report import Verdict, at_most, show_reasons, spread
from tests.bench.systems import Systems
from tests.bench.throughput import RECORDING_BYTES, run_plan

AT_ONCE = 16
MOST_OVER_DIRECT = 1.5


@dataclass(frozen=True)
class Pair:
    """What was accepted, and the ms of each direct put."""

    outcome: Outcome
    put_ms: list[float]

    @property
    def accept_p50(self) -> float:
        """The median ms from the start of an upload to its 202; infinite when there was none."""
        return median(self.outcome.accept_ms) if self.outcome.accept_ms else float("inf")

    @property
    def put_p50(self) -> float:
        """The median ms of a direct put."""
        return median(self.put_ms)


def pairs(under_measure: Systems, uploads: int, count: int, seeds: Iterator[int]) -> Iterator[Pair]:
    """Yield `count` pairs: direct puts, then uploads through the edge; the bucket is emptied after each."""
    settings = under_measure.stack.settings
    for _ in range(count):
        with empty_bucket_after(settings):
            meter.wait_until_quiet(under_measure.parts())
            plan = PutPlan(uploads, AT_ONCE, RECORDING_BYTES, next(seeds))
            with programs.Worker("tests.bench.peers.direct_puts", plan, settings) as writer:
                put_ms = writer.carry_out()["put_ms"]
        with empty_bucket_after(settings):
            accepting = Plan("", uploads, AT_ONCE, next(seeds), size_bytes=RECORDING_BYTES, listen=False)
            yield Pair(run_plan(under_measure, "ours", accepting).outcome, put_ms)


def show(console: Console, found: Sequence[Pair]) -> list[Verdict]:
    """Both medians; the verdict on their ratio."""
    table = Table("", "p50 ms of each round (spread)", title=f"156 KiB, {AT_ONCE} at a time, until accepted")
    table.add_row("ours", spread([pair.accept_p50 for pair in found]))
    table.add_row("direct put", spread([pair.put_p50 for pair in found]))
    console.print(table)
    lost = [reason for pair in found for reason in pair.outcome.lost]
    show_reasons(console, lost)
    ratios = [pair.accept_p50 / pair.put_p50 for pair in found]
    return [at_most("accept p50 over a direct put's, 16 at a time", ratios, MOST_OVER_DIRECT, clean=not lost)]
