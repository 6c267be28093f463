"""What open streams cost a notifier: memory of each, CPU of each delivery and event, and how late states come.

    .venv/bin/python -m tests.bench.sse [--nchan .../ngx_nchan_module.so]

With nchan's module for nginx (Debian: libnginx-mod-nchan) the same is measured of nchan, right after. A busy machine
makes states late, but changes CPU times little.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import psutil
from pymongo import AsyncMongoClient

from contracts import api, topology
from contracts.events import JobProgressed, JobProgressedData
from contracts.job import Job
from local_stack.stack import Stack
from tests.bench.programs import Server
from tests.support.events import Story
from tests.support.ports import free_port
from tests.support.stack_guard import guarded
from tests.support.stacks import claimed_ports

STREAMS = 5_000
EVENTS = 3_000
EVENTS_PER_SECOND = 500
LISTENERS_OF_ONE = 1_000
EVENTS_OF_ONE = 100
PATIENCE_SECONDS = 120.0
STAMP = re.compile(rb"sent at (\d+)")
"""The message of each state says when it was told, in ns."""


@dataclass
class Heard:
    """What listeners have heard: how many states, and how late each was, in ms."""

    states: int
    late: list[float]


class Listeners:
    """Listeners in a process of their own, so that their cost is not the server's."""

    def __init__(self, port: int, paths: Sequence[str]) -> None:
        command = [sys.executable, "-m", "tests.bench.sse", "--listen", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._ask({"paths": list(paths)})

    def heard(self) -> Heard:
        """What was heard since the last `forget`."""
        return Heard(**self._ask("heard"))

    def forget(self) -> None:
        """Begin to count anew."""
        self._ask("forget")

    async def until(self, states: int) -> None:
        """Wait until so many states were heard."""
        limit = time.monotonic() + PATIENCE_SECONDS
        while (heard := self.heard().states) < states:
            if time.monotonic() > limit:
                raise TimeoutError(f"{heard} of {states} states were heard")
            await asyncio.sleep(0.1)

    def leave(self) -> None:
        """Close all connections."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, what: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class _Listener(asyncio.Protocol):
    def __init__(self, path: str, heard: Heard) -> None:
        self._path = path
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        now = time.time_ns()
        self._heard.states += data.count(b"\ndata: ")
        self._heard.late += [(now - int(stamp)) / 1e6 for stamp in STAMP.findall(data)]


async def listen(port: int) -> None:
    """Be the process of `Listeners`: one line of JSON in, one out."""
    loop, heard = asyncio.get_running_loop(), Heard(0, [])
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        if asked == "forget":
            heard.states, heard.late = 0, []
        elif asked != "heard":
            for path in asked["paths"]:
                await loop.create_connection(lambda path=path: _Listener(path, heard), "127.0.0.1", port)  # type: ignore[misc] # mypy cannot infer a lambda with a default
        print(json.dumps(vars(heard)), flush=True)


class System(ABC):
    """A server of streams."""

    name: str
    port: int
    process: psutil.Process

    @abstractmethod
    async def jobs(self, count: int) -> list[str]:
        """Make jobs; a listener of each is told one state at once."""

    @abstractmethod
    def path(self, job_id: str) -> str:
        """Where a job's stream is."""

    @abstractmethod
    async def tell(self, job_id: str, revision: int) -> None:
        """Have the job's listeners told of a state."""


def state(job_id: str, revision: int) -> JobProgressed:
    """A state that says when it was told."""
    now = datetime.now(UTC)
    data = JobProgressedData(
        token_id="bench",
        revision=revision,
        status="processing",
        stage="waiting",
        progress=90,
        message=f"sent at {time.time_ns()}",
        s3_url=f"s3://bucket/audio/{job_id}/recording.wav",
        created_at=now,
        updated_at=now,
    )
    return JobProgressed.new(job_id, data, source="bench", traceparent=f"00-{'a' * 32}-{'b' * 16}-01", step="bench")


class Notifier(System):
    """A notifier before real back ends; states come through RabbitMQ, as other replicas tell them."""

    name = "notifier"

    def __init__(self, server: Server, port: int, documents: Any, exchange: aio_pika.abc.AbstractExchange) -> None:
        self.port = port
        self.process = psutil.Process(server.pid)
        self._documents = documents
        self._exchange = exchange

    @classmethod
    @asynccontextmanager
    async def running(cls, stack: Stack) -> AsyncIterator["Notifier"]:
        """Start it."""
        port = free_port()
        with Server(
            "notifier", port, dict(stack.settings) | {"LOG_LEVEL": "WARNING"}, stack.home / "notifier.log"
        ) as server:
            async with (
                AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"]) as mongodb,
                await aio_pika.connect(stack.settings["RABBITMQ_URL"]) as connection,
                connection.channel(publisher_confirms=False) as channel,
            ):
                # The notifier's own declaration comes at some moment after it listens; the same again is welcome.
                exchange = await channel.declare_exchange(topology.PROGRESS_EXCHANGE, "direct", durable=True)
                yield cls(server, port, mongodb.get_default_database()["jobs"], exchange)

    async def jobs(self, count: int) -> list[str]:
        made = [Job.received(Story(str(uuid.uuid4())).upload_received(), None) for _ in range(count)]
        await self._documents.insert_many([job.model_dump(by_alias=True) for job in made])
        return [job.job_id for job in made]

    def path(self, job_id: str) -> str:
        return f"/tokens/analysis-progress/{job_id}"

    async def tell(self, job_id: str, revision: int) -> None:
        message = aio_pika.Message(state(job_id, revision).encode(), correlation_id=job_id)
        await self._exchange.publish(message, topology.partition(job_id), mandatory=False)


class Nchan(System):
    """nginx with nchan; states come by HTTP."""

    name = "nchan"
    CONFIG = """
        load_module {module}; daemon off; master_process off; worker_rlimit_nofile 65536; error_log stderr crit;
        events {{ worker_connections 16384; }}
        http {{
            access_log off; keepalive_requests 1000000; nchan_shared_memory_size 512M;
            client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location ~ ^/listen/(.+)$ {{ nchan_subscriber eventsource; nchan_channel_id $1; }}
                location ~ ^/tell/(.+)$ {{ nchan_publisher; nchan_channel_id $1; nchan_message_buffer_length 5; }}
            }}
        }}"""

    def __init__(self, pid: int, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.port = port
        self.process = psutil.Process(pid)
        self._reader = reader
        self._writer = writer

    @classmethod
    @asynccontextmanager
    async def running(cls, module: Path, home: Path) -> AsyncIterator["Nchan"]:
        """Start it."""
        port, config = free_port(), home / "nchan.conf"
        (home / "logs").mkdir(exist_ok=True)
        config.write_text(cls.CONFIG.format(module=module, port=port), encoding="utf-8")
        nginx = await asyncio.create_subprocess_exec("nginx", "-p", str(home), "-c", str(config))
        try:
            while True:
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            yield cls(nginx.pid, port, reader, writer)
            writer.close()
        finally:
            nginx.terminate()
            await nginx.wait()

    async def jobs(self, count: int) -> list[str]:
        made = [str(uuid.uuid4()) for _ in range(count)]
        for job_id in made:
            await self.tell(job_id, 1)
        return made

    def path(self, job_id: str) -> str:
        return f"/listen/{job_id}"

    async def tell(self, job_id: str, revision: int) -> None:
        body = api.state_json(job_id, state(job_id, revision).data, "ko")
        head = f"POST /tell/{job_id} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        assert length, answer
        await self._reader.readexactly(int(length[1]))


async def measure(system: System) -> None:
    """Print what streams of this server cost."""
    jobs = await system.jobs(STREAMS)
    warming = Listeners(system.port, [system.path(jobs[0])])
    await warming.until(1)
    warming.leave()
    before = system.process.memory_info().rss
    listeners = Listeners(system.port, [system.path(job_id) for job_id in jobs])
    await listeners.until(STREAMS)
    kib = (system.process.memory_info().rss - before) / STREAMS / 1024
    listeners.forget()
    used = await _cpu(system, _tell_many(system, jobs, listeners))
    late = sorted(listeners.heard().late)
    listeners.leave()
    p50, p99 = late[len(late) // 2], late[len(late) * 99 // 100]
    print(f"{system.name}: {kib:.1f} KiB for each of {STREAMS:,} streams")
    print(f"{system.name}: {used / EVENTS * 1e6:.0f} µs of CPU for each event, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    [job_id] = await system.jobs(1)
    listeners = Listeners(system.port, [system.path(job_id)] * LISTENERS_OF_ONE)
    await listeners.until(LISTENERS_OF_ONE)
    listeners.forget()
    used = await _cpu(system, _tell_one(system, job_id, listeners))
    listeners.leave()
    print(f"{system.name}: {used / EVENTS_OF_ONE / LISTENERS_OF_ONE * 1e6:.1f} µs of CPU for each delivery")


async def _tell_many(system: System, jobs: Sequence[str], listeners: Listeners) -> None:
    revisions, began = dict.fromkeys(jobs, 1), time.monotonic()
    for number in range(EVENTS):
        job_id = random.choice(jobs)
        revisions[job_id] += 1
        await asyncio.sleep(began + number / EVENTS_PER_SECOND - time.monotonic())
        await system.tell(job_id, revisions[job_id])
    await listeners.until(EVENTS)


async def _tell_one(system: System, job_id: str, listeners: Listeners) -> None:
    for number in range(EVENTS_OF_ONE):
        await system.tell(job_id, 2 + number)
        await listeners.until((number + 1) * LISTENERS_OF_ONE)


async def _cpu(system: System, work: Any) -> float:
    before = system.process.cpu_times()
    await work
    after = system.process.cpu_times()
    return after.user + after.system - before.user - before.system


async def main(nchan: Path | None) -> None:
    """Measure all."""
    with claimed_ports() as base, tempfile.TemporaryDirectory(prefix="sori-bench-") as folder, guarded(Path(folder)):
        stack = Stack(Path(folder), port_base=base, replicas=1, given={}, timeout=100, only_backends=True)
        try:
            stack.up()
            async with Notifier.running(stack) as notifier:
                await measure(notifier)
        finally:
            stack.down()
        if nchan is not None:
            async with Nchan.running(nchan, Path(folder)) as other:
                await measure(other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nchan", type=lambda text: Path(text).resolve(), help="nchan's module for nginx")
    parser.add_argument("--listen", type=int, metavar="PORT", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asyncio.run(main(asked.nchan) if asked.listen is None else listen(asked.listen))
