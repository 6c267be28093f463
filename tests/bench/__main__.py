"""`make bench`: measures Sori beside the baseline and prints what came of it; a report, not a test."""

import argparse
import fcntl
import itertools
import os
import platform
import shutil
import signal
import sys
import time

from rich.console import Console

from local_stack.errors import StackError
from local_stack.stack import Stack
from tests.bench import report
from tests.bench.analysis import analysis_times
from tests.bench.large_uploads import idle_memory, large_uploads
from tests.bench.meter import MIB
from tests.bench.programs import ROOT, ProgramError
from tests.bench.report import Verdict
from tests.bench.systems import Systems, systems
from tests.bench.throughput import one_at_a_time, throughput

HOME = ROOT / ".sori" / "bench"
OF_STACKS = ("throughput", "single", "large")
MEASUREMENTS = ("analysis", *OF_STACKS)


def main() -> int:
    """Run the measurements that were asked for; 0 unless they could not be run."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as an exit, so that everything is stopped
    # Piped output has no width of its own, and the tables need about this much.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    console.print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.2f} before")
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
            verdicts = report.show_analysis(console, analysis_times()) if "analysis" in options.only else []
            if set(options.only) & set(OF_STACKS):
                verdicts += _measure_stacks(console, options)
        report.show_verdicts(console, verdicts)
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


def _measure_stacks(console: Console, options: argparse.Namespace) -> list[Verdict]:
    with systems(HOME, options.port_base) as both:
        console.print("The stack and the baseline are up.")
        return _measure(console, both, options)


def _measure(console: Console, both: Systems, options: argparse.Namespace) -> list[Verdict]:
    seeds = itertools.count(int(time.time()) % 1_000_000 * 1000)
    idle = idle_memory(both)
    verdicts: list[Verdict] = []
    if "throughput" in options.only:
        pairs = []
        for pair in throughput(both, options.jobs, options.rounds, seeds):
            pairs.append(pair)
            console.print(f"round {len(pairs)} of {options.rounds}: ratio {pair.ratio:.2f}")
        verdicts += report.show_throughput(console, pairs)
    if "single" in options.only:
        pair = one_at_a_time(both, options.singles, seeds)
        verdicts += report.show_one_at_a_time(console, pair)
    if "large" in options.only:
        size = options.large_mib * MIB
        runs = list(large_uploads(both, size, options.large_rounds, seeds))
        verdicts += report.show_large(console, runs, idle, size)
    return verdicts


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="measure this (may be repeated)")
    parser.add_argument("--jobs", type=int, default=256, help="jobs per throughput run (256)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of throughput runs (5)")
    parser.add_argument("--singles", type=int, default=30, help="jobs sent one at a time (30)")
    parser.add_argument("--large-mib", type=int, default=200, help="size of a large upload in MiB (200)")
    parser.add_argument("--large-rounds", type=int, default=3, help="rounds of large uploads (3)")
    base = int(os.environ.get("SORI_PORT_BASE", "8000")) + 10_000
    parser.add_argument("--port-base", type=int, default=base, help=f"first port of the stack ({base})")
    options = parser.parse_args()
    options.only = options.only or list(MEASUREMENTS)
    return options


if __name__ == "__main__":
    sys.exit(main())
