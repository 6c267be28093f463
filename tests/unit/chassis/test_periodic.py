"""What is done again and again: it goes on after a failure, and is over once it is stopped."""

import asyncio

import pytest
import structlog

from chassis.errors import AwayError
from chassis.periodic import Periodic

LIMIT_SECONDS = 5.0


class Looks:
    """Counts looks; the first `failing` fail, and each waits while `gate` is closed."""

    def __init__(self, failing: int = 0) -> None:
        self.begun = self.ended = 0
        self.cancelled = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._failing = failing
        self._more = asyncio.Event()

    async def look(self) -> None:
        self.begun += 1
        self._more.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.begun <= self._failing:
            raise AwayError("MongoDB", "AutoReconnect")
        self.ended += 1

    async def number(self, count: int) -> None:
        """Return once so many looks have begun."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.begun < count:
                self._more.clear()
                await self._more.wait()


async def test_a_look_that_fails_is_logged_and_followed_by_others() -> None:
    looks = Looks(failing=2)
    periodic = Periodic(looks.look, seconds=0.001, waiting="sweeper waits")
    with structlog.testing.capture_logs() as logged:
        periodic.start()
        await looks.number(4)
        await periodic.stop()
    told = {"log_level": "warning", "event": "sweeper waits", "reason": "away: MongoDB: AutoReconnect"}
    assert logged == [told, told]


async def test_nothing_is_under_way_once_it_is_stopped() -> None:
    looks = Looks()
    looks.gate.clear()
    periodic = Periodic(looks.look, seconds=0.001, waiting="-", at_once=True)
    periodic.start()
    await looks.number(1)
    await periodic.stop()
    assert looks.cancelled
    assert looks.ended == 0


async def test_what_never_began_can_be_stopped() -> None:
    await Periodic(Looks().look, seconds=1, waiting="-").stop()


@pytest.mark.parametrize("at_once", [True, False])
async def test_it_begins_with_a_wait_unless_it_is_to_look_at_once(at_once: bool) -> None:
    looks = Looks()
    periodic = Periodic(looks.look, seconds=3600, waiting="-", at_once=at_once)
    periodic.start()
    for _ in range(5):
        await asyncio.sleep(0)
    await periodic.stop()
    assert looks.begun == at_once


async def test_the_wait_may_differ_each_time() -> None:
    looks = Looks()
    waits = iter((0.001, 0.001, 3600.0))
    periodic = Periodic(looks.look, seconds=lambda: next(waits), waiting="-")
    periodic.start()
    await looks.number(2)
    for _ in range(5):
        await asyncio.sleep(0)
    await periodic.stop()
    assert looks.begun == 2
