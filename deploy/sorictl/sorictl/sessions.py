"""Connects a command to RabbitMQ for as long as its work takes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sorictl.errors import InterruptedByUserError
from sorictl.rabbitmq import RabbitMQ, connected
from sorictl.settings import BrokerSettings, read_settings

Answer = TypeVar("Answer")


def with_rabbitmq(
    work: Callable[[RabbitMQ], Awaitable[Answer]], *, interrupted: str, may_be_new: bool = False
) -> Answer:
    """Run the work; `interrupted` says what holds when Ctrl-C ends it, `may_be_new` is as for `connected`."""
    url = str(read_settings(BrokerSettings).rabbitmq_url)

    async def connect_and_work() -> Answer:
        async with connected(url, may_be_new=may_be_new) as rabbitmq:
            return await work(rabbitmq)

    try:
        return asyncio.run(connect_and_work())
    except KeyboardInterrupt:
        raise InterruptedByUserError(interrupted) from None
