"""What a job costs when there are many: 100, 10,000 and 1,000,000 jobs in the database, then 10,000 messages that wait.

The jobs, with their analyses, are copies of a real one's documents. The messages wait in a queue for retries, which is
on the way of a job's own: so the redrive sees them. Of some jobs sent one at a time everything is counted: keys and
documents examined and documents written, by MongoDB's profiler, and messages published and delivered, by RabbitMQ's
firehose. The loops' own looks at what is due name no job: of those, the most that one look examined is shown.

CPU is measured without either, of both systems in turn: ours per job (everything but client and analysis server) over
the baseline's, which no database slows down.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import aio_pika
from pymongo import MongoClient
from rich.console import Console
from rich.table import Table

from contracts.topology import RETRY_DELAYS
from local_stack.stack import Stack
from tests.bench import copies
from tests.bench.load import Plan
from tests.bench.programs import ProgramError
from tests.bench.report import Verdict, at_most, spread
from tests.bench.systems import Systems
from tests.bench.throughput import RECORDING_BYTES, pair_of, run_plan
from tests.bench.tracing import Passed, Trace

MESSAGES = 10_000
MOST_CPU = 1.25
MOST_OF_A_LOOK = 100
"""Keys and documents. A look at what is due reads a page of it at most, however many jobs there are."""
_PROFILE_BYTES = 64 * 1024 * 1024
_TIMER_FIELDS = {"publish_at", "redrives", "redriven_at"}
_TIMER_WRITES = 2
"""How many writes of the redrive's timer a job may have more, because it is slow or others wait."""
_AT_ONCE = 16
_WAITING = "bench.waiting"
_LONGEST_DELAY = RETRY_DELAYS[-1]


@dataclass(frozen=True)
class Size:
    """How many jobs there are, one figure after the other, and how many are counted and timed each time."""

    jobs: tuple[int, ...]
    counted: int
    timed: int
    rounds: int


@dataclass(frozen=True)
class Counts:
    """What was counted of one job, or the medians of several."""

    keys: float
    documents: float
    writes: float
    messages: float


@dataclass(frozen=True)
class Cost:
    """What a job cost under one condition; `cpu` has our share of the baseline's CPU for each round.

    `most_of_a_look` is the most keys and documents that one operation examined which names no job.
    """

    condition: str
    counts: Counts
    most_of_a_look: int
    cpu: list[float]


def costs(under_measure: Systems, size: Size, seeds: Iterator[int]) -> Iterator[Cost]:
    """Yield the cost of a job under each condition, beginning with the fewest jobs."""
    stack = under_measure.stack
    for jobs in size.jobs:
        missing = max(jobs - copies.count(stack), 0)
        if missing:
            seed = next(seeds)
            copies.add_completed(stack, f"bench-{seed}", copies.job_ids(seed, missing))
        yield _cost(under_measure, size, f"{jobs:,} jobs", nullcontext, seeds)
    waiting = partial(_waiting, stack)
    yield _cost(under_measure, size, f"the same, and {MESSAGES:,} messages waiting", waiting, seeds)


def show(console: Console, found: Sequence[Cost]) -> list[Verdict]:
    """Every condition; verdicts on the counts and on CPU, each beside the fewest jobs'."""
    title = "A job among many: medians per job; everything's CPU over the baseline's"
    table = Table("", "keys", "documents", "writes", "messages", "a look: most", "CPU (spread)", title=title)
    for cost in found:
        figures = (cost.counts.keys, cost.counts.documents, cost.counts.writes, cost.counts.messages)
        shown = [f"{figure:g}" for figure in (*figures, cost.most_of_a_look)]
        table.add_row(cost.condition, *shown, spread(cost.cpu))
    console.print(table)
    fewest = found[0]
    verdicts = []
    for cost in found[1:]:
        same = cost.counts == fewest.counts and cost.most_of_a_look <= MOST_OF_A_LOOK
        said = "the same" if same else f"{cost.counts}".removeprefix("Counts")
        figure = f"keys, documents, writes, messages per job: {cost.condition}"
        verdicts.append(Verdict(figure, said, f"as with {fewest.condition}", same))
        ratios = [share / median(fewest.cpu) for share in cost.cpu]
        verdicts.append(at_most(f"CPU per job over that with {fewest.condition}: {cost.condition}", ratios, MOST_CPU))
    return verdicts


def _cpu(under_measure: Systems, size: Size, seed: int) -> float:
    return pair_of(under_measure, Plan("", size.timed, _AT_ONCE, seed, size_bytes=RECORDING_BYTES)).cpu_of_all


def _cost(
    under_measure: Systems,
    size: Size,
    condition: str,
    holds: Callable[[], AbstractContextManager[None]],
    seeds: Iterator[int],
) -> Cost:
    """Measure while the condition `holds`, anew for each run."""
    with holds():
        counts, most_of_a_look = _counted(under_measure, size, next(seeds))
    cpu = []
    for _ in range(size.rounds):
        with holds():
            cpu.append(_cpu(under_measure, size, next(seeds)))
    return Cost(condition, counts, most_of_a_look, cpu)


def _counted(under_measure: Systems, size: Size, seed: int) -> tuple[Counts, int]:
    plan = Plan("", size.counted, 1, seed, size_bytes=RECORDING_BYTES)
    with Trace(under_measure.stack) as trace, _profiled(under_measure.stack) as operations:
        outcome = run_plan(under_measure, "ours", plan).outcome
    if outcome.lost:
        raise ProgramError(f"a job was lost while all was counted: {outcome.lost[0]}")
    each = [of_job(job_id, operations, trace.passed) for job_id in outcome.job_ids]
    # An insertion's document is not in its entry, so that the profiler does not tell whose it was.
    inserted = sum(operation.get("ninserted", 0) for operation in operations) / size.counted
    counts = Counts(
        keys=median(counts.keys for counts in each),
        documents=median(counts.documents for counts in each),
        writes=median(counts.writes for counts in each) + inserted,
        messages=median(counts.messages for counts in each),
    )
    looks = [operation for operation in operations if not any(job_id in _text(operation) for job_id in outcome.job_ids)]
    return counts, max((_examined(look) for look in looks), default=0)


def of_job(job_id: str, operations: Sequence[Mapping[str, Any]], passed: Sequence[Passed]) -> Counts:
    """What one job cost, of what the profiler and the firehose have noted; without up to two writes of the timer."""
    own = _without_timer([operation for operation in operations if job_id in _text(operation)])
    return Counts(
        keys=sum(operation.get("keysExamined", 0) for operation in own),
        documents=sum(operation.get("docsExamined", 0) for operation in own),
        writes=sum(operation.get("nModified", 0) + operation.get("ndeleted", 0) for operation in own),
        messages=sum(job_id.encode() in message.body for message in passed),
    )


def _text(operation: Mapping[str, Any]) -> str:
    return str(operation.get("command"))


def _examined(operation: Mapping[str, Any]) -> int:
    return int(operation.get("keysExamined", 0)) + int(operation.get("docsExamined", 0))


def _without_timer(own: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """All operations but the first two that wrote nothing but the redrive's timer."""
    timers = [operation for operation in own if _written(operation) and _written(operation) <= _TIMER_FIELDS]
    return [operation for operation in own if not any(operation is timer for timer in timers[:_TIMER_WRITES])]


def _written(operation: Mapping[str, Any]) -> set[str]:
    """The fields that an update names; none for other operations and for updates by pipeline."""
    command = operation.get("command", {})
    update = command.get("u") or command.get("update")
    return {field for fields in update.values() for field in fields} if isinstance(update, Mapping) else set()


@contextmanager
def _profiled(stack: Stack) -> Iterator[list[dict[str, Any]]]:
    """Have MongoDB note every operation; the list is filled when the block has ended."""
    operations: list[dict[str, Any]] = []
    with MongoClient[dict[str, Any]](stack.settings["MONGODB_URL"]) as client:
        database = client.get_default_database()
        database.command("profile", 0)
        database.drop_collection("system.profile")  # by default it holds no more than 1 MB
        database.create_collection("system.profile", capped=True, size=_PROFILE_BYTES)
        database.command("profile", 2)
        try:
            yield operations
        finally:
            database.command("profile", 0)
            operations += database["system.profile"].find()


@contextmanager
def _waiting(stack: Stack) -> Iterator[None]:
    """Have MESSAGES messages wait for a retry while the block runs, and come back into a queue that nobody reads.

    Raises ProgramError when they did not wait until its end.
    """
    url = stack.settings["RABBITMQ_URL"]
    asyncio.run(_publish_waiting(url))
    yield
    if (left := asyncio.run(_end_waiting(url))) < MESSAGES:
        raise ProgramError(f"only {left:,} of {MESSAGES:,} messages were still waiting when the measurement had ended")


async def _publish_waiting(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.declare_queue(_WAITING, durable=True)
        exchange = await channel.get_exchange(_LONGEST_DELAY.name)
        for number in range(MESSAGES):
            # The routing key is the queue that it returns to.
            await exchange.publish(aio_pika.Message(b"%d" % number), routing_key=_WAITING)
        await channel.declare_queue(_LONGEST_DELAY.name, passive=True)  # answered once all before it is done


async def _end_waiting(url: str) -> int:
    """Remove them; return how many were still waiting."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(_LONGEST_DELAY.name)
        left = queue.declaration_result.message_count or 0
        await queue.purge()
        await channel.queue_delete(_WAITING)
        return left
