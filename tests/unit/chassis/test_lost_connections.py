"""RabbitMQ's driver, and the broker itself, say less than the truth of a connection: what services make of it."""

import asyncio
from importlib import import_module
from typing import Any

import pytest

PACKAGES = ("gateway", "uploader", "analyzer_bridge", "notifier")


@pytest.fixture(params=PACKAGES)
def bounded(request: pytest.FixtureRequest) -> Any:
    return import_module(f"{request.param}.rabbitmq")._bounded


async def test_what_the_driver_cancels_is_an_error(bounded: Any) -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(answer.cancel)
    with pytest.raises(ConnectionError):
        async with bounded(10):
            await answer


async def test_a_task_that_is_really_cancelled_ends(bounded: Any) -> None:
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


async def test_an_answer_that_does_not_come_is_an_error_in_time(bounded: Any) -> None:
    with pytest.raises(TimeoutError):
        async with bounded(0.01):
            await asyncio.Event().wait()
