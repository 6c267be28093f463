"""What passes through RabbitMQ, as its firehose tells it: no service is asked, and none counts for itself."""

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Self

import aio_pika
import psutil

from local_stack.stack import Stack
from tests.support import rabbitmqctl

_EXCHANGE = "amq.rabbitmq.trace"
_QUIET_SECONDS = 1.0
_LIMIT_SECONDS = 30.0


@dataclass(frozen=True)
class Passed:
    """One message: published, or delivered to the client whose connection comes from `client_port`."""

    is_delivery: bool
    client_port: int
    body: bytes


class Trace:
    """Everything that passes while its block runs; complete when the block has ended."""

    def __init__(self, stack: Stack) -> None:
        self.passed: list[Passed] = []
        self._stack = stack
        self._tracing = rabbitmqctl.traced(stack)
        self._listening = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(_LIMIT_SECONDS):
            raise TimeoutError("the firehose's queue could not be declared")
        self._tracing.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._tracing.__exit__(None, None, None)
        self._over.set()
        self._thread.join()

    async def _listen(self) -> None:
        async with await aio_pika.connect(self._stack.settings["RABBITMQ_URL"]) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue(exclusive=True)
            for pattern in ("publish.#", "deliver.#"):
                await queue.bind(_EXCHANGE, pattern)
            await queue.consume(self._note, no_ack=True)
            self._listening.set()
            seen, since = 0, time.monotonic()
            while not self._over.is_set() or time.monotonic() - since < _QUIET_SECONDS:
                await asyncio.sleep(0.1)
                if len(self.passed) != seen or not self._over.is_set():
                    seen, since = len(self.passed), time.monotonic()

    async def _note(self, message: aio_pika.abc.AbstractIncomingMessage) -> None:
        name = message.headers["connection"]
        # 127.0.0.1:40000 -> 127.0.0.1:8002
        port = str(name).partition(" -> ")[0].rpartition(":")[2]
        delivered = (message.routing_key or "").startswith("deliver.")
        self.passed.append(Passed(delivered, int(port) if port.isdecimal() else 0, message.body))


def connection_ports(stack: Stack, part: str) -> set[int]:
    """The ports from which a part's processes have connections to RabbitMQ."""
    broker = stack.plan.ports.rabbitmq
    connections = (each for pid in stack.pids(part) for each in psutil.Process(pid).net_connections("tcp"))
    return {each.laddr.port for each in connections if each.raddr and each.raddr.port == broker}
