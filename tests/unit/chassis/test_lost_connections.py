"""RabbitMQ's driver, and the broker itself, say less than the truth of a connection: what services make of it."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aio_pika.abc import AbstractRobustConnection

from chassis.rabbitmq.bounds import bounded
from chassis.rabbitmq.channels import question


async def test_what_the_driver_cancels_is_an_error() -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(answer.cancel)
    with pytest.raises(ConnectionError):
        async with bounded(10):
            await answer


async def test_a_task_that_is_really_cancelled_ends() -> None:
    async def wait() -> None:
        async with bounded(10):
            waiting.set()
            await asyncio.Event().wait()

    waiting = asyncio.Event()
    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_answer_that_does_not_come_is_an_error_in_time() -> None:
    with pytest.raises(TimeoutError):
        async with bounded(0.01):
            await asyncio.Event().wait()


class Channel:
    """A channel whose closing ends when the broker has said so."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.agreed = asyncio.Event()
        self.closed = asyncio.Event()

    async def close(self, _: object) -> None:
        self.closing.set()
        await self.agreed.wait()
        self.closed.set()


def connection_with(channel: Channel) -> Any:
    async def opened(*, publisher_confirms: bool) -> Channel:
        assert not publisher_confirms, "another round trip, for what asks a question only"
        return channel

    return SimpleNamespace(transport=SimpleNamespace(connection=SimpleNamespace(channel=opened)))


async def test_a_question_that_is_cut_off_does_not_cut_off_the_closing_of_its_channel() -> None:
    """The driver would close the channel a second time, and the broker ends the whole connection for that."""
    channel, asked = Channel(), asyncio.Event()

    async def ask() -> None:
        async with question(connection_with(channel)):
            asked.set()
            await asyncio.Event().wait()

    asking = asyncio.create_task(ask())
    await asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await channel.closing.wait()
    channel.agreed.set()
    await channel.closed.wait()


async def test_an_answer_does_not_wait_for_the_closing_of_its_channel() -> None:
    channel = Channel()
    async with asyncio.timeout(10), question(connection_with(channel)):
        pass
    assert not channel.closed.is_set()
    channel.agreed.set()
    await channel.closed.wait()


async def test_there_is_no_channel_while_the_connection_is_away() -> None:
    with pytest.raises(ConnectionError):
        async with question(cast("AbstractRobustConnection", SimpleNamespace(transport=None))):
            pass
