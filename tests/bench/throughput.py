"""Small recordings: jobs per second at 64 at a time, and the time of one job alone, of both systems in turn."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

from tests.bench import meter, programs
from tests.bench.load import Outcome, Plan
from tests.bench.systems import ANALYSIS_SECONDS, Systems

RECORDING_BYTES = 156 * 1024
AT_ONCE = 64
_WARM_UP_JOBS = 64


@dataclass(frozen=True)
class Run:
    """One plan carried out against one system, and the CPU ms per job meanwhile: of every process under
    measure, of all other programs on the machine, and what the machine's host took away.
    """

    outcome: Outcome
    cpu_ms_per_job: dict[str, float]
    others_ms_per_job: float
    stolen_ms_per_job: float


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


def throughput(under_measure: Systems, jobs: int, rounds: int, seeds: Iterator[int]) -> Iterator[Pair]:
    """Yield `rounds` pairs of runs, after one short warm-up run of each system that does not count.

    Raises ProgramError when not one job comes through either system.
    """
    warm_up = _both(under_measure, lambda url: _plan(url, _WARM_UP_JOBS, AT_ONCE, next(seeds)))
    for name, run in (("Sori", warm_up.ours), ("the baseline", warm_up.baseline)):
        if not run.outcome.job_ms:
            raise programs.ProgramError(f"No job comes through {name}: {run.outcome.lost[0]}")
    for _ in range(rounds):
        yield _both(under_measure, lambda url: _plan(url, jobs, AT_ONCE, next(seeds)))


def one_at_a_time(under_measure: Systems, jobs: int, seeds: Iterator[int]) -> Pair:
    """One pair of runs in which each job starts when the one before it has ended."""
    return _both(under_measure, lambda url: _plan(url, jobs, 1, next(seeds)))


def above_analysis_ms(run: Run) -> float:
    """The median ms from the start of an upload to its result, less the analysis server's own time."""
    return median(run.outcome.job_ms) - ANALYSIS_SECONDS * 1000 if run.outcome.job_ms else float("inf")


def median_cpu_ms(runs: list[Run]) -> dict[str, float]:
    """For each process the median over the runs of its CPU ms per job."""
    return {name: median(run.cpu_ms_per_job[name] for run in runs) for name in runs[0].cpu_ms_per_job}


def _plan(url: str, jobs: int, at_once: int, seed: int) -> Plan:
    return Plan(url=url, jobs=jobs, at_once=at_once, size_bytes=RECORDING_BYTES, seed=seed)


def _both(under_measure: Systems, plan: Callable[[str], Plan]) -> Pair:
    ours = _run(under_measure, plan(under_measure.stack.url))
    return Pair(ours, _run(under_measure, plan(under_measure.baseline_url)))


def _run(under_measure: Systems, plan: Plan) -> Run:
    with programs.load_client(plan) as client:
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
