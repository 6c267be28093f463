"""`make bench`: measures Sori beside its peers and prints what came of it; a report, not a test."""

import argparse
import fcntl
import itertools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console

from local_stack.errors import StackError
from local_stack.stack import Stack
from tests.bench import accept, analysis, database, large_uploads, replicas, report, single, streams, throughput
from tests.bench.meter import MIB
from tests.bench.programs import ROOT, ProgramError
from tests.bench.report import Verdict
from tests.bench.systems import Systems, systems

HOME = ROOT / ".sori" / "bench"
RESULTS = ROOT / ".sori" / "bench.md"

Found = TypeVar("Found")


@dataclass(frozen=True)
class Amounts:
    """How much each measurement does."""

    rounds: int
    jobs: int
    singles: int
    accepts: int
    large_bytes: int
    long_bytes: int
    streams: streams.Size
    replica_jobs: int
    database: database.Size


FULL = Amounts(
    rounds=5,
    jobs=256,
    singles=10,
    accepts=128,
    large_bytes=200 * MIB,
    long_bytes=large_uploads.TEN_MINUTES_BYTES,
    streams=streams.Size(streams=5000, events=10_000, on_one=1000, fan_outs=50),
    replica_jobs=400,
    database=database.Size(jobs=(100, 10_000, 1_000_000), counted=20, timed=96, rounds=5),
)
SHORT = Amounts(
    rounds=2,
    jobs=64,
    singles=3,
    accepts=32,
    large_bytes=32 * MIB,
    long_bytes=MIB,
    streams=streams.Size(streams=500, events=1000, on_one=100, fan_outs=20),
    replica_jobs=64,
    database=database.Size(jobs=(100, 1000), counted=5, timed=32, rounds=1),
)
"""Enough to see that a measurement works; its figures mean nothing."""


@dataclass(frozen=True)
class Bench:
    """What the measurements on the stack share."""

    console: Console
    both: Systems
    amounts: Amounts
    seeds: Iterator[int]
    idle: dict[str, int]

    def told(self, name: str, pairs: Iterable[Found]) -> list[Found]:
        """All of `pairs`, with a line on the console after each."""
        found = []
        for number, pair in enumerate(pairs, 1):
            self.console.print(f"{name}: round {number} is done", style="dim")
            found.append(pair)
        return found


def _throughput(bench: Bench) -> list[Verdict]:
    plans = (throughput.wavs(bench.amounts.jobs, next(bench.seeds)) for _ in range(bench.amounts.rounds))
    pairs = bench.told("throughput", (throughput.pair_of(bench.both, plan) for plan in plans))
    return throughput.show_wavs(bench.console, pairs)


def _webm(bench: Bench) -> list[Verdict]:
    plans = (throughput.webms(bench.amounts.jobs // 2, next(bench.seeds)) for _ in range(bench.amounts.rounds))
    pairs = bench.told("webm", (throughput.pair_of(bench.both, plan) for plan in plans))
    return throughput.show_webms(bench.console, pairs)


def _single(bench: Bench) -> list[Verdict]:
    amounts = bench.amounts
    rounds = single.rounds(bench.both, amounts.singles, amounts.rounds, bench.seeds)
    return single.show(bench.console, bench.told("single", rounds))


def _accept(bench: Bench) -> list[Verdict]:
    pairs = accept.pairs(bench.both, bench.amounts.accepts, bench.amounts.rounds, bench.seeds)
    return accept.show(bench.console, bench.told("accept", pairs))


def _long(bench: Bench) -> list[Verdict]:
    rounds = large_uploads.long(bench.both, bench.amounts.long_bytes, bench.amounts.rounds, bench.seeds)
    return large_uploads.show_long(bench.console, bench.told("long", rounds))


def _large(bench: Bench) -> list[Verdict]:
    rounds = large_uploads.large(bench.both, bench.amounts.large_bytes, 3, bench.seeds)
    return large_uploads.show_large(bench.console, bench.told("large", rounds), bench.idle)


def _streams(bench: Bench) -> list[Verdict]:
    amounts = bench.amounts
    pairs = streams.pairs(bench.both, amounts.streams, amounts.rounds, bench.seeds)
    return streams.show(bench.console, bench.told("streams", pairs))


def _database(bench: Bench) -> list[Verdict]:
    costs = database.costs(bench.both, bench.amounts.database, bench.seeds)
    return database.show(bench.console, bench.told("database", costs))


ON_THE_STACK: dict[str, Callable[[Bench], list[Verdict]]] = {
    "throughput": _throughput,
    "webm": _webm,
    "single": _single,
    "accept": _accept,
    "long": _long,
    "streams": _streams,
    "large": _large,
    "database": _database,
}
"""The measurements that share one stack, in the order in which they run: the last leaves a large database."""
MEASUREMENTS = ("analysis", "replicas", *ON_THE_STACK)


def main() -> int:
    """Run the measurements that were asked for; 0 unless they could not be run."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exit, so that everything is stopped
    # Piped output has no width of its own, and the tables need about this much.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(f"{report.machine()}, load {os.getloadavg()[0]:.2f} before")
    try:
        HOME.parent.mkdir(exist_ok=True)
        alone = HOME.with_suffix(".lock").open("w")
        fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.print("Another measurement is running here. Wait for it: two at once measure nothing.")
        return 1
    with alone:
        return _run(console, options)


def _run(console: Console, options: argparse.Namespace) -> int:
    try:
        _clear()
        with console.status("Measuring"):
            verdicts = _measure(console, options)
        report.show_verdicts(console, verdicts)
        report.write_markdown(RESULTS, verdicts)
        console.print(f"The same as Markdown: {RESULTS.relative_to(ROOT)}")
    except (StackError, ProgramError) as error:
        console.print(str(error), *getattr(error, "details", ()), sep="\n", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    _clear()
    return 0


def _clear() -> None:
    """End what a measurement that was killed may have left, and remove its data."""
    if HOME.exists():
        Stack(HOME).down()
        shutil.rmtree(HOME)


def _measure(console: Console, options: argparse.Namespace) -> list[Verdict]:
    amounts: Amounts = SHORT if options.short else FULL
    seeds = itertools.count(int(time.time()) % 1_000_000 * 1000)
    verdicts: list[Verdict] = []
    if "analysis" in options.only:
        verdicts += analysis.show(console, analysis.analysis_times())
    if "replicas" in options.only:
        runs = list(replicas.handled(HOME, options.port_base, amounts.replica_jobs, seeds))
        verdicts += replicas.show(console, runs)
        _clear()
    if wanted := [measure for name, measure in ON_THE_STACK.items() if name in options.only]:
        with systems(HOME, options.port_base) as both:
            console.print("The stack and its peers are up.")
            bench = Bench(console, both, amounts, seeds, large_uploads.idle_memory(both))
            throughput.warm_up(both, seeds)
            for measure in wanted:
                verdicts += measure(bench)
    return verdicts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure this (may be repeated)")
    parser.add_argument("--short", action="store_true", help="do little, to see that the measurements work")
    base = int(os.environ.get("SORI_PORT_BASE", "8000")) + 10_000
    parser.add_argument("--port-base", type=int, default=base, help=f"first port of the stack ({base})")
    options = parser.parse_args()
    options.only = options.only or list(MEASUREMENTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
