"""RabbitMQ's driver, and the broker itself, say less than the truth of a connection: what services make of it."""

import asyncio
from importlib import import_module
from typing import Any

import pytest

PACKAGES = ("gateway", "uploader", "analyzer_bridge", "notifier")
SUBSCRIBERS = ("uploader", "analyzer_bridge", "notifier")


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


@pytest.fixture(params=SUBSCRIBERS)
def rabbitmq(request: pytest.FixtureRequest) -> Any:
    return import_module(f"{request.param}.rabbitmq")


async def nothing(_: object) -> None:
    return None


async def test_messages_that_wait_while_none_comes_into_empty_hands_are_passed_over(rabbitmq: Any) -> None:
    hands = rabbitmq._Hands(nothing)
    looks = [hands.are_passed_over(waiting=1) for _ in range(rabbitmq.PATIENT_LOOKS)]
    assert looks == [False] * (rabbitmq.PATIENT_LOOKS - 1) + [True]


async def test_while_messages_come_those_that_wait_are_not_passed_over(rabbitmq: Any) -> None:
    hands = rabbitmq._Hands(nothing)
    for _ in range(2 * rabbitmq.PATIENT_LOOKS):
        await hands.take(object())
        assert not hands.are_passed_over(waiting=1)


async def test_hands_that_hold_something_pass_nothing_over(rabbitmq: Any) -> None:
    done = asyncio.Event()

    async def hold(_: object) -> None:
        await done.wait()

    hands = rabbitmq._Hands(hold)
    taking = asyncio.create_task(hands.take(object()))
    await asyncio.sleep(0)
    assert not any(hands.are_passed_over(waiting=1) for _ in range(2 * rabbitmq.PATIENT_LOOKS))
    done.set()
    await taking
    assert any(hands.are_passed_over(waiting=1) for _ in range(2 * rabbitmq.PATIENT_LOOKS))


async def test_an_empty_queue_passes_nothing_over(rabbitmq: Any) -> None:
    hands = rabbitmq._Hands(nothing)
    assert not any(hands.are_passed_over(waiting=0) for _ in range(2 * rabbitmq.PATIENT_LOOKS))
