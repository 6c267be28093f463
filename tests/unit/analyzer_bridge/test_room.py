"""How much room there is: what is counted, what one replica adds until the next count, who waits, who is woken."""

import asyncio

import pytest

from analyzer_bridge import room as room_module
from analyzer_bridge.room import Room

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


async def test_while_the_server_rests_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(room_module, "monotonic", lambda: now)
    room = Room()
    room.rest(SECONDS)
    room.rest(1.0)
    now += SECONDS - 1
    assert room.rests
    assert room.free == 0
    now += 1
    assert not room.rests
    assert room.free


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
