"""A virtual host and a database of a test's own, on the stack's back ends: no service knows of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage, HeadersType
from aio_pika.exceptions import ChannelNotFoundEntity
from pymongo import AsyncMongoClient

from contracts import topology
from local_stack.stack import Stack
from tests.support import operator
from tests.support.databases import own_database
from tests.support.operator import Said


@dataclass(frozen=True)
class BackEnds:
    """Both, and an operator in front of them."""

    rabbitmq_url: str
    mongodb_url: str
    jobs: Any
    connection: AbstractConnection
    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """What sorictl reads."""
        return {"RABBITMQ_URL": self.rabbitmq_url, "MONGODB_URL": self.mongodb_url}

    async def sorictl(self, *arguments: str, without: str | None = None, **environ: str) -> Said:
        """Run a command, with the setting `without` empty."""
        given = {**self.environ, **environ, **({without: ""} if without else {})}
        return await operator.sorictl(self.folder, given, *arguments)

    async def asked(self, *arguments: str, answers: str, **environ: str) -> Said:
        """Run a command at a terminal."""
        return await operator.at_a_terminal(self.folder, {**self.environ, **environ}, *arguments, answers=answers)

    async def put(
        self, queue: str, body: bytes, message_id: str | None = None, headers: HeadersType | None = None
    ) -> None:
        """Put a message straight into a queue."""
        async with self.connection.channel() as channel:
            message = aio_pika.Message(body, message_id=message_id, headers=headers)
            await channel.default_exchange.publish(message, queue)

    async def count(self, queue: str) -> int | None:
        """How many messages wait in a queue; None when there is no such queue."""
        channel = await self.connection.channel()
        try:
            found = await channel.declare_queue(queue, passive=True)
        except ChannelNotFoundEntity:
            return None
        await channel.close()
        return found.declaration_result.message_count

    async def taken(self, queue: str) -> list[AbstractIncomingMessage]:
        """Take all messages out of a queue."""
        taken = []
        async with self.connection.channel() as channel:
            source = await channel.get_queue(queue)
            while (message := await source.get(fail=False, no_ack=True)) is not None:
                message.headers.pop(topology.DELIVERIES_HEADER, None)  # the broker's own
                taken.append(message)
        return taken


@asynccontextmanager
async def opened(stack: Stack, rabbitmq_url: str, folder: Path) -> AsyncIterator[BackEnds]:
    """The virtual host of this address, and a new database, which is removed at the end of the block."""
    async with (
        own_database(stack) as mongodb_url,
        AsyncMongoClient[dict[str, Any]](mongodb_url, tz_aware=True) as mongodb,
        await aio_pika.connect(rabbitmq_url) as connection,
    ):
        yield BackEnds(rabbitmq_url, mongodb_url, mongodb.get_default_database()["jobs"], connection, folder)
