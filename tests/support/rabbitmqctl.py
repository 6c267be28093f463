"""What the broker says of its queues but AMQP does not tell: its counts include unacknowledged messages."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

from local_stack.stack import Stack

PROGRAM = "/usr/lib/rabbitmq/bin/rabbitmqctl"  # the one in /usr/sbin switches to the user rabbitmq


def messages(stack: Stack) -> dict[str, int]:
    """How many messages each queue of the stack's broker holds, waiting or unacknowledged."""
    rows = _list(stack, "list_queues", "name", "messages")
    return {name: int(count) for name, count in rows}


@contextmanager
def traced(stack: Stack) -> Iterator[None]:
    """Have the broker tell amq.rabbitmq.trace, until the block ends, of all that is published and delivered.

    See RabbitMQ's documentation of the firehose tracer.
    """
    _run(stack, "trace_on")
    try:
        yield
    finally:
        _run(stack, "trace_off")


@asynccontextmanager
async def stood_still(stack: Stack, queue: str, url: str | None = None) -> AsyncIterator[None]:
    """Suspend a quorum queue until the block ends: it neither answers nor refuses anything.

    It is the stack's own, or one of the virtual host with this address.
    """
    host = "%2F" if url is None else urlsplit(url).path[1:]
    process = f"whereis('{host}_{queue}')"
    await asyncio.to_thread(_run, stack, "eval", f"sys:suspend({process}).")
    try:
        yield
    finally:
        await asyncio.to_thread(_run, stack, "eval", f"sys:resume({process}).")


@asynccontextmanager
async def virtual_host(stack: Stack) -> AsyncIterator[str]:
    """Make a virtual host, and give the address of it; no service of the stack knows it."""
    address = urlsplit(stack.settings["RABBITMQ_URL"])
    name = f"test-{uuid4()}"
    await asyncio.to_thread(_run, stack, "add_vhost", name)
    try:
        await asyncio.to_thread(_run, stack, "set_permissions", "-p", name, address.username or "", ".*", ".*", ".*")
        yield address._replace(path=f"/{name}").geturl()
    finally:
        await asyncio.to_thread(_run, stack, "delete_vhost", name)


def close_connections(stack: Stack, url: str) -> None:
    """Cut every connection to a virtual host."""
    _run(stack, "close_all_connections", "-p", urlsplit(url).path[1:], "a test")


def delete_queue(stack: Stack, url: str, queue: str) -> None:
    """Delete a queue of a virtual host, whoever it belongs to."""
    _run(stack, "delete_queue", "-p", urlsplit(url).path[1:], queue)


def _list(stack: Stack, *command: str) -> list[list[str]]:
    return [line.split("\t") for line in _run(stack, *command, "--no-table-headers").splitlines()]


def _run(stack: Stack, *command: str) -> str:
    done = subprocess.run(
        [PROGRAM, "--quiet", "--timeout", "20", *command],
        env=dict(stack.parts["rabbitmq"].env),
        cwd=stack.home,  # the paths in the broker's environment are relative to it
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout
