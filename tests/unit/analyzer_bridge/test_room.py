"""How much room there is: what is counted, what one replica adds until the next count, who waits, who is woken."""

import asyncio

import pytest

from analyzer_bridge import room as room_module
from analyzer_bridge.room import AFTER_A_REST, Room

SECONDS = 5.0


async def count(room: Room, found: int) -> None:
    async def answer(limit: int) -> int:
        return min(found, limit)

    await room.count(answer)


async def is_woken(room: Room) -> bool:
    """Whether somebody who looks for what waits would look now."""
    waiter = asyncio.create_task(room.woken())
    for _ in range(3):
        await asyncio.sleep(0)
    done = waiter.done()
    waiter.cancel()
    return done


async def test_without_a_limit_there_is_always_room_and_nobody_counts() -> None:
    room = Room()

    async def never(limit: int) -> int:
        raise AssertionError(limit)

    await room.count(never)
    for _ in range(1000):
        room.take()
    assert room.free > 1000


async def test_what_is_asked_for_here_is_added_to_the_count_and_what_ends_here_subtracted() -> None:
    room = Room(8)
    assert room.free == 8
    await count(room, 5)
    assert room.free == 3
    room.take()
    room.take()
    assert room.free == 1
    room.give_back()
    assert room.free == 2


async def test_a_count_takes_the_place_of_what_was_added_before_it() -> None:
    room = Room(8)
    for _ in range(4):
        room.take()
    await count(room, 4)
    assert room.free == 4
    for _ in range(4):
        room.give_back()
    await count(room, 0)
    assert room.free == 8


async def test_what_is_asked_for_during_a_count_is_not_forgotten() -> None:
    room = Room(8)

    async def meanwhile(limit: int) -> int:
        room.take()
        return min(3, limit)

    await room.count(meanwhile)
    assert room.free == 4


@pytest.mark.parametrize("asked", [8, 20])
async def test_there_is_never_less_than_no_room(asked: int) -> None:
    room = Room(8)
    await count(room, asked)
    assert room.free == 0
    room.take()
    assert room.free == 0


class Clock:
    """The time by which a rest is measured; it passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(room_module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def be_refused(room: Room, found: int, seconds: float = SECONDS) -> None:
    """Ask for one that waits while so many are in flight, and be told that the server is busy."""
    room.begin_asking()
    await room.busy(seconds, lambda limit: answer(min(found, limit)))
    room.end_asking(taken=False)


async def answer(found: int) -> int:
    return found


async def test_a_busy_server_with_nothing_in_hand_is_asked_for_nothing_until_it_has_rested(clock: Clock) -> None:
    room = Room()
    await be_refused(room, 0)
    await be_refused(room, 0, 1.0)
    clock.now += SECONDS - 1
    assert room.rests
    assert room.free == 0
    clock.now += 1
    assert not room.rests
    assert room.free == AFTER_A_REST


@pytest.mark.parametrize("limit", [None, 6])
async def test_a_busy_server_bears_what_it_has(clock: Clock, limit: int | None) -> None:
    room = Room(limit)
    await be_refused(room, 4)
    assert room.free == 0
    room.give_back()
    assert room.free == 1, "one has ended"
    room.begin_asking()
    assert room.free == 0
    room.end_asking(taken=True)
    assert room.free == 0
    clock.now += SECONDS
    assert room.free == (AFTER_A_REST if limit is None else 2)


async def test_those_that_were_asked_for_together_and_refused_are_not_what_it_bears(clock: Clock) -> None:
    room = Room()
    for _ in range(20):
        room.begin_asking()
    for _ in range(3):
        room.taken_on()
        room.end_asking(taken=True)
    await asyncio.gather(*(room.busy(SECONDS, lambda _: answer(3)) for _ in range(17)))
    assert room.free == 0
    for _ in range(17):
        room.end_asking(taken=False)
        assert room.free == 0
    room.give_back()
    assert room.free == 1
    assert clock.now == 1000.0


async def test_a_first_try_that_is_refused_is_not_what_it_bears_either(clock: Clock) -> None:
    """It is recorded as asked for, so a count has it."""
    room = Room()
    for _ in range(4):
        room.take()
    await room.busy(SECONDS, lambda _: answer(4))
    room.give_back(not_taken=True)
    assert room.free == 0
    room.give_back()
    assert room.free == 1
    assert clock.now == 1000.0


async def test_it_is_asked_for_more_as_long_as_it_takes_more_on_and_freely_once_nobody_waits(clock: Clock) -> None:
    room = Room()
    await be_refused(room, 3)
    clock.now += SECONDS
    for _ in range(AFTER_A_REST):
        room.begin_asking()
    assert room.free == 0
    for _ in range(AFTER_A_REST):
        room.taken_on()
        room.end_asking(taken=True)
    assert room.free == AFTER_A_REST
    room.left_over(True)
    await count(room, 8)
    assert room.free == AFTER_A_REST
    room.left_over(False)
    await count(room, 8)
    assert room.free > 1000


async def test_one_that_waits_and_is_being_asked_for_is_in_no_count(clock: Clock) -> None:
    room = Room(8)
    room.begin_asking()
    await count(room, 5)
    assert room.free == 2
    room.end_asking(taken=False)
    assert room.free == 3
    assert clock.now == 1000.0


async def test_a_count_that_fails_when_the_server_is_busy_leaves_it_alone(clock: Clock) -> None:
    async def fail(limit: int) -> int:
        raise ConnectionError(limit)

    room = Room()
    room.begin_asking()
    with pytest.raises(ConnectionError):
        await room.busy(SECONDS, fail)
    room.end_asking(taken=False)
    assert room.free == 0
    clock.now += SECONDS
    assert room.free == AFTER_A_REST


async def test_somebody_waits_from_being_recorded_until_a_look_leaves_nobody_over() -> None:
    room = Room(1)
    assert not room.somebody_waits
    room.recorded()
    assert room.somebody_waits
    room.begin_look()
    room.recorded()
    room.left_over(False)
    assert room.somebody_waits, "recorded during the look, which may not have found it"
    room.begin_look()
    room.left_over(True)
    assert room.somebody_waits
    room.begin_look()
    room.left_over(False)
    assert not room.somebody_waits


async def test_an_end_wakes_whoever_asks_only_while_somebody_waits() -> None:
    room = Room(1)
    room.take()
    room.give_back()
    assert not await is_woken(room)
    room.take()
    room.recorded()
    assert not await is_woken(room), "there is no room"
    room.give_back()
    assert await is_woken(room)
    assert not await is_woken(room), "once"


async def test_one_that_waits_only_behind_others_wakes_whoever_asks() -> None:
    room = Room(1)
    room.recorded()
    assert await is_woken(room)
