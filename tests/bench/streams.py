"""Server-sent events: memory per stream, CPU per delivery and per event, delays, of the notifier and nchan in turn.

Each round starts both servers anew and talks to them directly, without the edge (nchan is nginx itself). First 5,000
streams on 5,000 jobs: what they take in resident memory, then 500 events a second to one job after another. Then 1,000
streams on one job, and one event after another to all of them. The notifier's events come through RabbitMQ, whose CPU
is shown and not counted; nchan's come as POST. What is published has the same length for both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Literal

from rich.console import Console
from rich.table import Table

from contracts.job import Job, progressed
from local_stack.stack import Stack
from tests.bench import copies, meter, programs
from tests.bench.listeners import Heard, ListenPlan
from tests.bench.peers.nchan import nchan
from tests.bench.report import Verdict, at_most, spread
from tests.bench.systems import Systems

NOTIFIER = "notifier-1"
EVENTS_PER_SECOND = 500.0
MOST_MEMORY = 1.2
MOST_CPU_PER_DELIVERY = 1.6
MOST_US_PER_EVENT = 310
MOST_P99 = 2.0


@dataclass(frozen=True)
class Size:
    """How many streams on as many jobs, how many events to them, and how many streams on one job."""

    streams: int
    events: int
    on_one: int
    fan_outs: int


@dataclass(frozen=True)
class Figures:
    """What one server took in one round, in KiB, microseconds of CPU and ms."""

    kib_per_stream: float
    us_per_event: float
    rabbitmq_us_per_event: float
    p99_ms: float
    us_per_delivery: float
    deliveries_per_second: float
    lost: int


@dataclass(frozen=True)
class Pair:
    """Both servers in one round."""

    ours: Figures
    nchan: Figures


class Measurement:
    """One server, as it is measured: where it listens, and its processes."""

    def __init__(self, plan: ListenPlan, stack: Stack, pids: list[int]) -> None:
        self._plan = plan
        self._stack = stack
        self._parts = {"server": pids, "rabbitmq": stack.pids("rabbitmq")}

    def figures(self, size: Size, one: ListenPlan) -> Figures:
        """Carry out both plans, one after the other."""
        at_rest = meter.resident_bytes(self._parts["server"])
        with self._listening(self._plan) as many:
            taken = meter.resident_bytes(self._parts["server"]) - at_rest
            heard, used = self._heard(many)
        with self._listening(one) as few:
            fanned, used_for_one = self._heard(few)
        deliveries = max(len(fanned.delays_ms), 1)
        events = self._plan.events
        return Figures(
            kib_per_stream=taken / 1024 / size.streams,
            us_per_event=used["server"] * 1000 / events,
            rabbitmq_us_per_event=used["rabbitmq"] * 1000 / events,
            p99_ms=quantiles(heard.delays_ms, n=100)[98],
            us_per_delivery=used_for_one["server"] * 1000 / deliveries,
            deliveries_per_second=deliveries / fanned.seconds,
            lost=heard.lost + fanned.lost,
        )

    def _listening(self, plan: ListenPlan) -> programs.Worker:
        return programs.Worker("tests.bench.listeners", plan, self._stack.settings)

    def _heard(self, client: programs.Worker) -> tuple[Heard, dict[str, float]]:
        before = meter.cpu_ms(self._parts)
        heard = Heard(**client.carry_out())
        return heard, meter.cpu_ms_since(self._parts, before)


def pairs(under_measure: Systems, size: Size, rounds: int, seeds: Iterator[int]) -> Iterator[Pair]:
    """Yield `rounds` rounds. Raises ProgramError when nchan cannot be had."""
    stack = under_measure.stack
    for _ in range(rounds):
        seed = next(seeds)
        with copies.under_way(stack, f"bench-{seed}", copies.job_ids(seed, size.streams)) as document:
            job = Job.model_validate(document)
            state = progressed(job, job.revision, job.view).model_dump_json()
            stack.kill(NOTIFIER)
            stack.wait_until_ready(NOTIFIER)
            meter.wait_until_quiet(under_measure.parts())
            port = stack.plan.ports.service("notifier", 1)
            many, one = _plans("notifier", port, seed, size, state)
            ours = Measurement(many, stack, stack.pids(NOTIFIER)).figures(size, one)
        yield Pair(ours, _nchan(under_measure, seed, size, state))


def show(console: Console, found: Sequence[Pair]) -> list[Verdict]:
    """Every figure of both; verdicts on memory, CPU and delay."""
    table = Table("", "notifier", "nchan", title="Server-sent events: median (spread)")
    rows = (
        ("resident KiB per stream", "kib_per_stream"),
        ("one job a time: µs of the server's CPU per event", "us_per_event"),
        ("the same, RabbitMQ's", "rabbitmq_us_per_event"),
        ("one job a time: ms to arrive, p99", "p99_ms"),
        ("to all streams of one job: µs of the server's CPU per delivery", "us_per_delivery"),
        ("the same: deliveries per second", "deliveries_per_second"),
        ("events that did not arrive", "lost"),
    )
    columns = [pair.ours for pair in found], [pair.nchan for pair in found]
    for title, name in rows:
        table.add_row(title, *(spread([getattr(each, name) for each in column]) for column in columns))
    console.print(table)
    clean = not any(pair.ours.lost for pair in found)

    def over(name: str) -> list[float]:
        return [getattr(pair.ours, name) / max(getattr(pair.nchan, name), 0.001) for pair in found]

    per_event = [pair.ours.us_per_event for pair in found]
    return [
        at_most("SSE: resident memory per stream over nchan's", over("kib_per_stream"), MOST_MEMORY, clean=clean),
        at_most("SSE: CPU per delivery over nchan's", over("us_per_delivery"), MOST_CPU_PER_DELIVERY, clean=clean),
        at_most("SSE: µs of CPU per event, 500 a second", per_event, MOST_US_PER_EVENT, clean=clean),
        at_most("SSE: p99 of the delay over nchan's, 500 a second", over("p99_ms"), MOST_P99, clean=clean),
    ]


def _nchan(under_measure: Systems, seed: int, size: Size, state: str) -> Figures:
    stack, port = under_measure.stack, under_measure.nchan_port
    many, one = _plans("nchan", port, seed, size, state)
    with nchan(port, stack.home / "nchan") as server:
        return Measurement(many, stack, [server.pid]).figures(size, one)


def _plans(
    server: Literal["notifier", "nchan"], port: int, seed: int, size: Size, state: str
) -> tuple[ListenPlan, ListenPlan]:
    many = ListenPlan(server, port, seed, size.streams, size.streams, size.events, state, EVENTS_PER_SECOND)
    return many, ListenPlan(server, port, seed, 1, size.on_one, size.fan_outs, state)
