"""Which partitions a replica listens in: those of its listeners, and for ten minutes those of listeners who left."""

import asyncio
from collections.abc import Awaitable, Callable

from notifier.partitions import IDLE_AFTER, LONGEST_LOOK_SECONDS, Partitions
from tests.unit.way.virtual_time import VirtualLoop

JOB, OTHER = "0a000000-0000-4000-8000-000000000000", "ff000000-0000-4000-8000-000000000000"
SOON_SECONDS = IDLE_AFTER.total_seconds() + 2 * LONGEST_LOOK_SECONDS


class World:
    """A replica's listeners, by job, and the partitions that it is bound to."""

    def __init__(self) -> None:
        self.listened: set[str] = set()
        self.bound: set[str] = set()
        self.partitions = Partitions(self, lambda: self.listened)

    async def bind(self, key: str) -> None:
        self.bound.add(key)

    def unbind(self, key: str) -> None:
        self.bound.remove(key)

    async def enter(self, job_id: str) -> None:
        self.listened.add(job_id)
        await self.partitions.enter(job_id)


def run(story: Callable[[World], Awaitable[None]]) -> None:
    """Let a story happen on a clock of its own."""

    async def all_of_it() -> None:
        world = World()
        world.partitions.start()
        await story(world)
        await world.partitions.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(all_of_it())


def test_a_partition_is_bound_for_its_first_listener_and_kept_while_there_is_one() -> None:
    async def story(world: World) -> None:
        await world.enter(JOB)
        await world.enter(OTHER)
        assert world.bound == {"0a", "ff"}
        await asyncio.sleep(10 * SOON_SECONDS)
        assert world.bound == {"0a", "ff"}

    run(story)


def test_a_partition_is_given_up_ten_minutes_after_its_last_listener_has_left() -> None:
    async def story(world: World) -> None:
        await world.enter(JOB)
        await world.enter(OTHER)
        await asyncio.sleep(3 * SOON_SECONDS)
        world.listened.remove(JOB)
        await asyncio.sleep(IDLE_AFTER.total_seconds() - LONGEST_LOOK_SECONDS)
        assert world.bound == {"0a", "ff"}
        await asyncio.sleep(3 * LONGEST_LOOK_SECONDS)
        assert world.bound == {"ff"}
        await world.enter(JOB)
        assert world.bound == {"0a", "ff"}

    run(story)


def test_a_listener_who_comes_in_between_keeps_a_partition_bound() -> None:
    async def story(world: World) -> None:
        for _ in range(5):
            await world.enter(JOB)
            world.listened.remove(JOB)
            await asyncio.sleep(IDLE_AFTER.total_seconds() - 1)
            assert world.bound == {"0a"}

    run(story)
