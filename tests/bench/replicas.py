"""Whether the notifier grows by replicas: the messages that each of 1, 2 and 4 handles under the same load.

A message that is handled is one that the broker delivers to that process, of its shared queues and of its own. Every
job has a listener, who comes through the edge; one came before in each partition, so that how much of a job is told
does not depend on how early its listener is there. The other services have as many replicas.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from contracts import topology
from local_stack.ports import SPAN
from local_stack.stack import Stack
from tests.bench import meter, programs
from tests.bench.load import Outcome, Plan
from tests.bench.report import Verdict, at_most, show_reasons, spread
from tests.bench.systems import FAKE, fake, refuse_taken, target_url
from tests.bench.throughput import AT_ONCE, RECORDING_BYTES
from tests.bench.tracing import Trace, connection_ports

COUNTS = (1, 2, 4)
MOST_MEAN = 1.10
MOST_WORST = 1.35
_WARM_UP_JOBS = 32


@dataclass(frozen=True)
class Handled:
    """The messages per job that each replica handled."""

    each: list[float]
    outcome: Outcome

    @property
    def mean(self) -> float:
        """Of the replicas."""
        return sum(self.each) / len(self.each)


def handled(home: Path, port_base: int, jobs: int, seeds: Iterator[int]) -> Iterator[Handled]:
    """Yield what came of each number of replicas, each on a stack of its own. Raises as `systems` does."""
    for count in COUNTS:
        fake_port = port_base + SPAN
        stack = Stack(home, port_base=port_base, replicas=count, given={"TARGET_SERVER_URL": target_url(fake_port)})
        refuse_taken({fake_port: FAKE}, stack)
        try:
            stack.up()
            with fake(fake_port, home):
                _send(stack, _WARM_UP_JOBS, next(seeds))
                _listen_everywhere(stack)
                with Trace(stack) as trace:
                    outcome = _send(stack, jobs, next(seeds))
            ports = [connection_ports(stack, f"notifier-{number}") for number in range(1, count + 1)]
        finally:
            stack.down()
        deliveries = [passed.client_port for passed in trace.passed if passed.is_delivery]
        yield Handled([sum(port in own for port in deliveries) / jobs for own in ports], outcome)


def show(console: Console, found: Sequence[Handled]) -> list[Verdict]:
    """What each replica handled; verdicts on the mean and the worst of each number of replicas."""
    table = Table("notifiers", "each, median (spread)", "all", title="Messages that a notifier handles per job")
    for run in found:
        table.add_row(str(len(run.each)), spread(run.each), f"{sum(run.each):.2f}")
    console.print(table)
    show_reasons(console, [reason for run in found for reason in run.outcome.lost])
    alone = found[0].mean
    verdicts = []
    for run in found[1:]:
        clean, share = not run.outcome.lost, alone / len(run.each)
        name = f"{len(run.each)} notifiers: messages per job over those of one ÷ {len(run.each)}"
        verdicts.append(at_most(f"{name}, mean", [run.mean / share], MOST_MEAN, clean=clean))
        verdicts.append(at_most(f"{name}, worst", [max(run.each) / share], MOST_WORST, clean=clean))
    return verdicts


def _listen_everywhere(stack: Stack) -> None:
    """Ask the edge for a stream in each partition. The answer is 404, but the notifier that gives it listens there."""
    with httpx.Client(base_url=stack.url) as client:
        for partition in topology.PARTITIONS:
            job_id = f"{partition}000000-0000-4000-8000-000000000000"
            answer = client.get(f"/tokens/analysis-progress/{job_id}")
            assert answer.status_code == httpx.codes.NOT_FOUND, answer


def _send(stack: Stack, jobs: int, seed: int) -> Outcome:
    plan = Plan("", jobs, AT_ONCE, seed, size_bytes=RECORDING_BYTES, patience_seconds=60)
    with programs.load_client(plan, stack.url) as client:
        outcome = programs.outcome_of(client.carry_out())
    meter.wait_until_quiet({name: stack.pids(name) for name in stack.parts})
    return outcome
