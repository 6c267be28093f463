"""Services that swallow chosen messages: they acknowledge them as any other, and do nothing with them.

The real service runs in its own process. Only what it registers for a queue is wrapped, so a swallowed message is
acknowledged by the service's own consumer. A consumer of the test's own would have to race with the services for the
message; a proxy would have to speak AMQP.

Which messages: a job is told by its trace, which a client may choose before it uploads, and which all its events carry.
A file stands for each message that is to be swallowed. The replica that manages to remove the file swallows the
message, so each is swallowed once, whichever replica gets it, and what is left of the files was not swallowed.

`python -m tests.support.swallowing MODULE` runs the service in MODULE.
"""

import dataclasses
import os
import runpy
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import structlog

from chassis.rabbitmq.connection import RabbitMQ
from contracts import events, topology
from contracts.events import InvalidEventError
from local_stack.settings import ROOT
from local_stack.stack import Stack

FOLDER = "SWALLOWED_MESSAGES"
"""The environment variable that names the folder with a file for each message."""

log = structlog.get_logger()


class Swallowing:
    """The messages that are to be swallowed, as files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def plan(self, trace_id: str, queues: Iterable[str]) -> None:
        """Have the first message of this trace swallowed in each of these queues."""
        for queue in queues:
            self._file(trace_id, queue).touch()

    def take(self, trace_id: str, queue: str) -> bool:
        """Tell whether the message at hand is to be swallowed; True once for each planned one."""
        try:
            self._file(trace_id, queue).unlink()
        except FileNotFoundError:
            return False
        return True

    def left(self, trace_id: str, queues: Iterable[str]) -> list[str]:
        """Those of these queues in which no message of the trace was swallowed yet."""
        return [queue for queue in queues if self._file(trace_id, queue).exists()]

    def prepare(self, stack: Stack) -> None:
        """Have every replica of every service in the stack swallow what is planned."""
        self._folder.mkdir()
        for part in list(stack.parts.values()):
            if part.name.rpartition("-")[0] in topology.SERVICES:
                python, _, module = part.command
                command = (python, "-m", __name__, module)
                env = {**part.env, "PYTHONPATH": str(ROOT), FOLDER: str(self._folder)}
                stack.parts[part.name] = dataclasses.replace(part, command=command, env=env)

    def _file(self, trace_id: str, queue: str) -> Path:
        return self._folder / f"{trace_id}.{queue}"


def main() -> None:
    """Run the service that the first argument names."""
    _wrap(Swallowing(Path(os.environ[FOLDER])))
    runpy.run_module(sys.argv[1], run_name="__main__")


def _wrap(swallowing: Swallowing) -> None:
    subscribe = RabbitMQ.subscribe

    def subscribe_swallowing(
        rabbitmq: RabbitMQ, queue: topology.Queue, deliver: Callable[[Any], Awaitable[None]]
    ) -> None:
        async def deliver_unless_swallowed(message: Any) -> None:
            try:
                event = events.decode(message.body)
            except InvalidEventError:
                await deliver(message)
                return
            if swallowing.take(event.trace_id, queue.name):
                log.warning("message swallowed", job_id=event.subject, event_id=event.id, queue=queue.name)
            else:
                await deliver(message)

        subscribe(rabbitmq, queue, deliver_unless_swallowed)

    RabbitMQ.subscribe = subscribe_swallowing  # type: ignore[method-assign,assignment] # the one seam that needs no product code


if __name__ == "__main__":
    main()
