"""The listening client: a process of its own that opens streams, publishes events, and notes when each arrives.

Run as `python -m tests.bench.listeners PLAN` (a ListenPlan as JSON), for the notifier with RABBITMQ_URL in the
environment. It prints `ready` once every stream is open, waits for a line, publishes, prints a Heard as JSON, and ends
when standard input closes. A stream is a bare socket whose events are only counted, so that the client takes little of
the machine from either server.
"""

import asyncio
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Literal, Protocol, cast

import aio_pika
import uvloop

from contracts.events import JobProgressed, JobProgressedData
from contracts.topology import PROGRESS_EXCHANGE, partition
from tests.bench.copies import job_ids

_MARK = b"\ndata: "
_OPENED_AT_ONCE = 100
_OPEN_LIMIT_SECONDS = 60.0
_SETTLING_SECONDS = 1.0
_ARRIVAL_LIMIT_SECONDS = 10.0
_TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"


@dataclass(frozen=True)
class ListenPlan:
    """`streams` streams on `jobs` jobs (ids of this seed), and `events` that are published to them, one job after
    another: `per_second`, or each when the one before it has arrived everywhere.

    `state` is what is published, as JSON: a JobProgressedData.
    """

    server: Literal["notifier", "nchan"]
    port: int
    seed: int
    jobs: int
    streams: int
    events: int
    state: str
    per_second: float | None = None


@dataclass
class Heard:
    """What arrived: the ms from the publishing of an event to its arrival, for each delivery; how many never came."""

    seconds: float = 0.0
    lost: int = 0
    delays_ms: list[float] = field(default_factory=list)


class Publisher(Protocol):
    """Publishes one more event about a job."""

    async def publish(self, job_id: str) -> None:
        """Return when the event is on its way."""


class ToRabbitMQ:
    """What another replica of the notifier would tell: job.progressed on the progress exchange, unconfirmed."""

    def __init__(self, exchange: aio_pika.abc.AbstractExchange, state: str) -> None:
        self._exchange = exchange
        self._state = JobProgressedData.model_validate_json(state)
        self._revisions: dict[str, int] = {}

    async def publish(self, job_id: str) -> None:
        """Publish the state with the job's next revision."""
        revision = self._revisions.get(job_id, self._state.revision) + 1
        self._revisions[job_id] = revision
        data = self._state.model_copy(update={"revision": revision})
        event = JobProgressed.new(job_id, data, source="/sori/bench", traceparent=_TRACEPARENT, step=str(revision))
        message = aio_pika.Message(event.encode(), correlation_id=job_id, message_id=event.id)
        await self._exchange.publish(message, routing_key=partition(job_id), mandatory=False)


class ToNchan(asyncio.Protocol):
    """POST on one connection, pipelined; answers are not looked at."""

    def __init__(self, state: str) -> None:
        self._body = state.encode()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    async def publish(self, job_id: str) -> None:
        """Publish the state on the job's channel."""
        assert self._transport is not None
        head = f"POST /pub/{job_id} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(self._body)}\r\n\r\n"
        self._transport.write(head.encode() + self._body)


class Stream(asyncio.Protocol):
    """One open stream; tells how many events came, whenever something came."""

    def __init__(self, note: Callable[[int], None], request: bytes) -> None:
        self._note = note
        self._request = request
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)  # uvloop's are of no common class

    def data_received(self, data: bytes) -> None:
        text = self._rest + data
        self._rest = text[1 - len(_MARK) :]  # too short to hold a mark, so none counts twice
        self._note(text.count(_MARK))


class ListeningClient:
    """Carries out one plan."""

    def __init__(self, plan: ListenPlan) -> None:
        self._plan = plan
        self._jobs = job_ids(plan.seed, plan.jobs)
        self._open: set[int] = set()
        self._sent: list[deque[float]] = [deque() for _ in range(plan.streams)]
        self._due = 0
        self._changed = asyncio.Event()
        self._heard = Heard()

    def note(self, number: int, events: int) -> None:
        """Something has come on a stream, `events` of them events."""
        now = time.perf_counter()
        # The notifier opens with the job's state; nchan with headers alone.
        if number not in self._open and (events or self._plan.server == "nchan"):
            self._open.add(number)
        for _ in range(min(events, len(self._sent[number]))):
            self._heard.delays_ms.append((now - self._sent[number].popleft()) * 1000)
            self._due -= 1
        self._changed.set()

    def stream(self, number: int) -> Stream:
        """One of the plan's streams, before it is connected."""
        path = "/sub/" if self._plan.server == "nchan" else "/tokens/analysis-progress/"
        job_id = self._jobs[number % len(self._jobs)]
        request = f"GET {path}{job_id} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n"
        return Stream(partial(self.note, number), request.encode())

    async def open(self) -> None:
        """Open every stream; TimeoutError when they do not all begin."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_OPEN_LIMIT_SECONDS):
            for number in range(self._plan.streams):
                await loop.create_connection(partial(self.stream, number), "127.0.0.1", self._plan.port)
                await self._until(partial(self._are_open, number - _OPENED_AT_ONCE))
            await self._until(partial(self._are_open, self._plan.streams))
        await asyncio.sleep(_SETTLING_SECONDS)

    async def run(self, publisher: Publisher) -> Heard:
        """Publish everything, and wait for what arrives; what does not within 10 s is lost."""
        begun = time.perf_counter()
        for number in range(self._plan.events):
            if self._plan.per_second:
                await asyncio.sleep(max(0.0, begun + number / self._plan.per_second - time.perf_counter()))
            await self._publish(publisher, self._jobs[number % len(self._jobs)], number)
            if not self._plan.per_second:
                await self._arrivals()
        await self._arrivals()
        self._heard.seconds = time.perf_counter() - begun
        self._heard.lost = self._due
        return self._heard

    async def _publish(self, publisher: Publisher, job_id: str, number: int) -> None:
        now = time.perf_counter()
        for stream in range(number % len(self._jobs), self._plan.streams, len(self._jobs)):
            self._sent[stream].append(now)
            self._due += 1
        await publisher.publish(job_id)

    async def _arrivals(self) -> None:
        try:
            async with asyncio.timeout(_ARRIVAL_LIMIT_SECONDS):
                await self._until(lambda: self._due == 0)
        except TimeoutError:
            return

    def _are_open(self, count: int) -> bool:
        return len(self._open) >= count

    async def _until(self, fact: Callable[[], bool]) -> None:
        while not fact():
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def _publisher(plan: ListenPlan) -> AsyncIterator[Publisher]:
    if plan.server == "nchan":
        loop = asyncio.get_running_loop()
        _, publisher = await loop.create_connection(lambda: ToNchan(plan.state), "127.0.0.1", plan.port)
        yield publisher
        return
    async with await aio_pika.connect(os.environ["RABBITMQ_URL"]) as connection:
        channel = await connection.channel(publisher_confirms=False)
        yield ToRabbitMQ(await channel.get_exchange(PROGRESS_EXCHANGE), plan.state)


async def _run(plan: ListenPlan) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = ListeningClient(plan)
    async with _publisher(plan) as publisher:
        await client.open()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # the streams are read meanwhile
        print(json.dumps(asdict(await client.run(publisher))), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_run(ListenPlan(**json.loads(sys.argv[1]))))
