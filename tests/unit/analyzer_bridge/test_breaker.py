"""The circuit breaker: when it opens, for how long, and how few it lets through until the server has answered."""

import asyncio

import pytest

from analyzer_bridge import breaker as breaker_module
from analyzer_bridge.breaker import Breaker


class Clock:
    """Time that passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(breaker_module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_so_many_failures_in_a_row_open_it_and_only_the_one_that_does_is_news(clock: Clock) -> None:
    breaker = Breaker(3, 5.0)
    assert [breaker.failed() for _ in range(4)] == [False, False, True, False]
    assert breaker.open_for() == 5.0
    clock.now += 5.0
    assert breaker.open_for() == 0.0


def test_a_success_between_begins_the_count_anew(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed()
    assert not breaker.succeeded(), "it had not opened"
    breaker.failed()
    assert breaker.open_for() == 0.0
    assert clock.now == 1000.0


def test_after_its_rest_it_takes_as_many_failures_again(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed()
    breaker.failed()
    clock.now += 5.0
    breaker.close_if_rested()
    breaker.failed()
    assert breaker.open_for() == 0.0
    breaker.failed()
    assert breaker.open_for() == 5.0


def test_what_the_server_asks_for_is_waited_whether_it_opens_or_not(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed(60.0)
    assert breaker.open_for() == 60.0
    clock.now += 59.0
    breaker.failed()
    assert breaker.open_for() == 5.0, "the longer of both"


def test_a_request_in_flight_that_succeeds_closes_it_at_once(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed()
    breaker.failed()
    assert breaker.is_open
    assert breaker.succeeded()
    assert not breaker.is_open
    assert breaker.open_for() == 0.0
    assert clock.now == 1000.0


def test_a_rest_that_the_server_asked_for_outlives_a_success(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed(60.0)
    breaker.succeeded()
    assert breaker.open_for() == 60.0
    assert not breaker.is_open, "nothing has failed often enough"
    assert clock.now == 1000.0


async def test_few_are_let_through_until_one_succeeds(clock: Clock) -> None:
    breaker = Breaker(2, 5.0)
    breaker.failed()
    breaker.failed()
    clock.now += 5.0
    at_once = most = 0
    going = asyncio.Event()

    async def ask() -> None:
        nonlocal at_once, most
        async with breaker.trial():
            at_once += 1
            most = max(most, at_once)
            await going.wait()
            at_once -= 1

    asked = [asyncio.create_task(ask()) for _ in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert most == 2
    going.set()
    await asyncio.gather(*asked)
    assert breaker.succeeded(), "news: it had opened"
    going.clear()
    asked = [asyncio.create_task(ask()) for _ in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert most == 6
    going.set()
    await asyncio.gather(*asked)
