"""Many recordings at a time: jobs per second and CPU per job, of Sori and the baseline in turn.

Two forms: WAVs of 156 KiB, and 10 s of WebM as a browser records it. Every job goes the whole way, from the upload
through decoding, analysis (50 ms) and webhook to the last event on the client's stream.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from local_stack.processes import SUPERVISOR
from tests.bench import meter, programs
from tests.bench.load import Outcome, Plan
from tests.bench.report import Verdict, at_least, at_most, show_reasons, spread
from tests.bench.systems import BASELINE, FAKE, LOAD_CLIENT, RELAY, SERVICES, Systems

RECORDING_BYTES = 156 * 1024
AT_ONCE = 64
LEAST_RATIO = 2.0
MOST_CPU_OF_SERVICES = 0.6
MOST_CPU_OF_ALL = 1.0
MOST_CPU_WEBM = 1.0
_WARM_UP_JOBS = 64
OURS = (*SERVICES, "rabbitmq", "mongod", "s3", "nginx", SUPERVISOR)
"""Everything that works for a job of ours, but for the client and the analysis server."""
BASELINES = (BASELINE, "s3")
"""The same of the baseline."""


@dataclass(frozen=True)
class Run:
    """One plan carried out against one system, and the CPU ms per job meanwhile: of every process under
    measure, of all other programs on the machine, and what the machine's host took away.
    """

    outcome: Outcome
    cpu_ms_per_job: dict[str, float]
    others_ms_per_job: float
    stolen_ms_per_job: float

    def cpu_ms(self, parts: Collection[str]) -> float:
        """CPU ms per job of these parts together."""
        return sum(self.cpu_ms_per_job[part] for part in parts)


@dataclass(frozen=True)
class Pair:
    """The two systems, measured one right after the other so that the machine is in the same condition."""

    ours: Run
    baseline: Run

    @property
    def ratio(self) -> float:
        """Our jobs per second over the baseline's; infinite when the baseline did none."""
        theirs = self.baseline.outcome.jobs_per_second
        return self.ours.outcome.jobs_per_second / theirs if theirs else float("inf")

    @property
    def cpu_of_services(self) -> float:
        """The CPU per job of our four services over that of the baseline's process."""
        return self.ours.cpu_ms(SERVICES) / self.baseline.cpu_ms([BASELINE])

    @property
    def cpu_of_all(self) -> float:
        """The CPU per job of everything but client and analysis server, ours over the baseline's."""
        return self.ours.cpu_ms(OURS) / self.baseline.cpu_ms(BASELINES)

    @property
    def is_clean(self) -> bool:
        """Whether no job of ours was lost."""
        return not (self.ours.outcome.lost or self.ours.outcome.fell_back)


def wavs(jobs: int, seed: int) -> Plan:
    """The WAVs of 156 KiB, 64 at a time."""
    return Plan("", jobs, AT_ONCE, seed, size_bytes=RECORDING_BYTES)


def webms(jobs: int, seed: int) -> Plan:
    """The browser's recordings of 10 s, 64 at a time."""
    return Plan("", jobs, AT_ONCE, seed, form="webm")


def warm_up(under_measure: Systems, seeds: Iterator[int]) -> None:
    """Have both systems work a little, so that neither begins cold.

    Raises ProgramError when not one job comes through either system.
    """
    for name in ("ours", BASELINE):
        run = run_plan(under_measure, name, wavs(_WARM_UP_JOBS, next(seeds)))
        if not run.outcome.job_ms:
            raise programs.ProgramError(f"No job comes through {name}: {run.outcome.lost[0]}")


def pair_of(under_measure: Systems, plan: Plan) -> Pair:
    """The plan carried out against both, one after the other."""
    return Pair(run_plan(under_measure, "ours", plan), run_plan(under_measure, BASELINE, plan))


def run_plan(under_measure: Systems, system: str, plan: Plan) -> Run:
    """The plan carried out against one system, by its name in `Systems.urls`, once the machine is quiet."""
    with programs.load_client(plan, under_measure.urls[system]) as client:
        parts = under_measure.parts(load_client=client.pid)
        meter.wait_until_quiet(parts)
        before, machine_before = meter.cpu_ms(parts), meter.Machine.now()
        outcome = programs.outcome_of(client.carry_out())
        under_measure.must_be_alive()
        meter.wait_until_quiet(parts)  # work that a run leaves behind is part of its cost
        used, machine = meter.cpu_ms_since(parts, before), meter.Machine.now()
    others = machine.busy_ms - machine_before.busy_ms - sum(used.values())
    stolen = machine.stolen_ms - machine_before.stolen_ms
    per_job = {name: ms / plan.jobs for name, ms in used.items()}
    return Run(outcome, per_job, max(others, 0.0) / plan.jobs, stolen / plan.jobs)


def show_wavs(console: Console, pairs: Sequence[Pair]) -> list[Verdict]:
    """The rounds and the CPU of the WAVs; verdicts on jobs per second and on both shares of CPU."""
    _show_rounds(console, f"Jobs per second, {AT_ONCE} at a time, WAVs of 156 KiB", pairs)
    _show_cpu(console, pairs)
    clean = all(pair.is_clean for pair in pairs)
    of_services, of_all = [pair.cpu_of_services for pair in pairs], [pair.cpu_of_all for pair in pairs]
    return [
        at_least("jobs/s over the baseline's, 64 at a time", [p.ratio for p in pairs], LEAST_RATIO, clean=clean),
        at_most("CPU per job, the services over the baseline", of_services, MOST_CPU_OF_SERVICES, clean=clean),
        at_most("CPU per job, everything over everything", of_all, MOST_CPU_OF_ALL, clean=clean),
    ]


def show_webms(console: Console, pairs: Sequence[Pair]) -> list[Verdict]:
    """The same of the browser's recordings; a verdict on the services' CPU."""
    _show_rounds(console, f"Jobs per second, {AT_ONCE} at a time, 10 s of WebM each", pairs)
    _show_cpu(console, pairs)
    clean = all(pair.is_clean for pair in pairs)
    shares = [pair.cpu_of_services for pair in pairs]
    return [at_most("CPU per job, 10 s of WebM, the services over the baseline", shares, MOST_CPU_WEBM, clean=clean)]


def _show_rounds(console: Console, title: str, pairs: Sequence[Pair]) -> None:
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
    show_reasons(console, [reason for pair in pairs for reason in pair.ours.outcome.lost])


def _show_cpu(console: Console, pairs: Sequence[Pair]) -> None:
    table = Table("process", "while ours works", f"while the {BASELINE} works", title="CPU ms per job, median (spread)")
    columns = [pair.ours for pair in pairs], [pair.baseline for pair in pairs]
    for name in columns[0][0].cpu_ms_per_job:
        if name != RELAY:
            table.add_row(name, *(spread([run.cpu_ms_per_job[name] for run in runs]) for runs in columns))
    table.add_section()
    table.add_row("our services, the baseline's process", *map(spread, _sums(columns, SERVICES, [BASELINE])))
    table.add_row(f"all of each but {LOAD_CLIENT} and {FAKE}", *map(spread, _sums(columns, OURS, BASELINES)))
    for row, of in (("other programs here", "others_ms_per_job"), ("taken by the host", "stolen_ms_per_job")):
        table.add_row(row, *(f"{median(getattr(run, of) for run in runs):.1f}" for runs in columns))
    console.print(table)


def _sums(columns: tuple[list[Run], list[Run]], *parts: Collection[str]) -> Iterator[list[float]]:
    for runs, of_system in zip(columns, parts, strict=True):
        yield [run.cpu_ms(of_system) for run in runs]
