"""Repairs what the robust connection does not notice: queues that were deleted, and a peer that has gone silent."""

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
"""Time between two checks for deleted queues."""
SETTLE_SECONDS = 1.0
"""How long to wait before a deleted queue is declared again. If that happens within some 30 ms, RabbitMQ (seen in
3.10) attaches the old queue's consumer to the new queue: the broker counts it, but what it is given never arrives.
"""
TOLD_SECONDS = 3 * LOOK_SECONDS
"""How long to wait before the witnesses are declared again: by then every process has seen that one is missing."""
LET_GO_SECONDS = 10.0
"""How long the work in hand may take to end before the connection is closed."""


class Mender:
    """Checks at intervals that the connection's queues exist, and learns from publishes that fail."""

    def __init__(self, queues: Callable[[], Sequence[topology.Queue]], idle: Callable[[], Awaitable[None]]) -> None:
        self._queues = queues
        self._idle = idle
        self._woken = asyncio.Event()
        self._missing = False
        self._doubted: UnderlayConnection | None = None

    async def run(self, connection: AbstractRobustConnection) -> None:
        """Check and repair until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            # Errors do not matter: the next check comes soon.
            with suppress(Exception):
                async with bounded(SET_UP_SECONDS):
                    await self._mend(connection)

    @contextmanager
    def noticing(self, transport: UnderlayConnection | None) -> Iterator[None]:
        """Learn from a publish that fails: replace the connection after a timeout, the queues when one is missing."""
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
                # The driver reconnects at once, with new channels, and restores declarations and consumers.
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
        """Reconnect, so that the driver declares what was deleted and consumes anew.

        This is done even if the broker still counts consumers: they may be those that receive nothing (SETTLE_SECONDS).
        """
        log.warning("rabbitmq queue was deleted")
        await asyncio.sleep(SETTLE_SECONDS)
        await self._let_go()
        if connection.transport is not None:
            await connection.transport.connection.close()
        await asyncio.sleep(TOLD_SECONDS)
        await declare_witnesses(connection)
        log.info("rabbitmq queues declared again")

    async def _let_go(self) -> None:
        """Let the work in hand end, for a while.

        Closing the connection cancels it, and a message whose queue was deleted would not be delivered again.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(LET_GO_SECONDS):
                await self._idle()
