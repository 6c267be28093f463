"""Mends what a connection that restores itself does not notice: queues that were deleted, a peer that is silent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import structlog
from aio_pika.abc import AbstractRobustConnection, UnderlayConnection
from aio_pika.exceptions import ChannelNotFoundEntity, PublishError

from chassis.rabbitmq.bounds import CLOSE_SECONDS, SET_UP_SECONDS, bounded
from chassis.rabbitmq.declaring import all_witnessed, declare_witnesses
from contracts import topology

log = structlog.get_logger()

LOOK_SECONDS = 2.0
"""How often it is looked whether a queue was deleted."""
SETTLE_SECONDS = 1.0
"""How long a deleted queue stays away. RabbitMQ (seen in 3.10) hands a consumer whose queue was deleted on to a queue
of that name that is declared within some 30 ms: it is counted there, and brings nothing of what it is given.
"""
TOLD_SECONDS = 3 * LOOK_SECONDS
"""By then every process has seen that the witness of a deleted queue is gone; then there is a new one."""
LET_GO_SECONDS = 10.0


class Mender:
    """Looks again and again whether the connection's queues are there, and learns from what is published."""

    def __init__(self, queues: Callable[[], Sequence[topology.Queue]], idle: Callable[[], Awaitable[None]]) -> None:
        self._queues = queues
        self._idle = idle
        self._woken = asyncio.Event()
        self._missing = False
        self._doubted: UnderlayConnection | None = None

    async def run(self, connection: AbstractRobustConnection) -> None:
        """Look, and mend, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            # Whatever the broker says: the next look comes soon.
            with suppress(Exception):
                async with bounded(SET_UP_SECONDS):
                    await self._mend(connection)

    @contextmanager
    def noticing(self, transport: UnderlayConnection | None) -> Iterator[None]:
        """Learn from a publish that fails: its connection is not used again, or a queue is declared again."""
        try:
            yield
        except TimeoutError:
            self._doubted = transport
            self._woken.set()
            raise
        except (ChannelNotFoundEntity, PublishError):
            self._miss()
            raise

    async def _mend(self, connection: AbstractRobustConnection) -> None:
        if self._doubted is not None and self._doubted is connection.transport:
            log.warning("rabbitmq connection given up")
            async with bounded(CLOSE_SECONDS):
                # The driver opens another at once, with new channels, and restores what was declared and consumed.
                await self._doubted.connection.close()
            self._doubted = None
        elif self._missing:
            await self._replace_queues(connection)
            self._missing = False
        elif not await all_witnessed(connection, self._queues()):
            self._miss()

    def _miss(self) -> None:
        self._missing = True
        self._woken.set()

    async def _replace_queues(self, connection: AbstractRobustConnection) -> None:
        """Declare again what was deleted, and consume anew, whatever the broker says of the consumers there were."""
        log.warning("rabbitmq queue was deleted")
        await asyncio.sleep(SETTLE_SECONDS)
        await self._let_go()
        if connection.transport is not None:
            await connection.transport.connection.close()
        await asyncio.sleep(TOLD_SECONDS)
        await declare_witnesses(connection)
        log.info("rabbitmq queues declared again")

    async def _let_go(self) -> None:
        """Let what is in hand end, for a while: closing a connection cancels it, and its queue may be no more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_SECONDS):
                await self._idle()
