"""Child processes: what work may take, what happens to it when its process dies, and that nothing stays behind."""

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from chassis.children import Children, ExhaustedError, LateError, Limits
from tests.support.child_work import (
    MIB,
    allocate,
    burn,
    fail,
    hoard,
    kill_always,
    kill_at_first,
    limits_of,
    nothing,
    unpicklable,
    unprepared,
    wait,
)
from tests.support.waiting import until_true

MEMORY_BYTES = 200 * MIB
LIMITS = Limits(cpu_seconds=10, wall_seconds=60)


@asynccontextmanager
async def children(count: int = 1, prepare: Callable[[], None] = nothing) -> AsyncIterator[Children]:
    started = Children(count, MEMORY_BYTES, prepare)
    try:
        yield started
    finally:
        started.stop()


async def waiting_in(started: Path) -> int:
    """Return the process that waits, once it does."""
    await until_true(lambda: started.exists() and bool(started.read_text()), "the work begins")
    return int(started.read_text())  # noqa: ASYNC240 - a few bytes


async def gone(pid: int) -> None:
    await until_true(lambda: not psutil.pid_exists(pid) or _is_dead(pid), f"{pid} ends")


def _is_dead(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_work_is_done_elsewhere_and_its_process_is_kept() -> None:
    async with children() as several:
        first = await several.do(os.getpid, limits=LIMITS)
        assert first != os.getpid()
        assert await several.do(os.getpid, limits=LIMITS) == first


async def test_all_are_started_at_once_and_work_side_by_side(tmp_path: Path) -> None:
    async with children(2) as several:
        await several.start()
        assert len(psutil.Process().children()) >= 2
        waiting = asyncio.create_task(several.do(wait, str(tmp_path / "a"), limits=LIMITS))
        await waiting_in(tmp_path / "a")
        assert await several.do(os.getpid, limits=LIMITS)
        waiting.cancel()


async def test_memory_is_bounded_beyond_what_a_child_begins_with() -> None:
    async with children() as several:
        assert await several.do(allocate, 150, limits=LIMITS) == 150 * MIB
        with pytest.raises(ExhaustedError):
            await several.do(allocate, 250, limits=LIMITS)
        assert await several.do(allocate, 150, limits=LIMITS) == 150 * MIB
        most, core = await several.do(limits_of, limits=LIMITS)
        assert most > MEMORY_BYTES
        assert core == 0


async def test_memory_that_earlier_work_has_left_taken_does_not_count_against_the_next() -> None:
    async with children() as several:
        await several.do(hoard, 100, limits=LIMITS)
        assert await several.do(allocate, 150, limits=LIMITS) == 150 * MIB


async def test_a_librarys_own_memory_error_counts_the_same() -> None:
    async with children() as several:
        with pytest.raises(ExhaustedError):
            await several.do(fail, "memory", limits=LIMITS)


async def test_processor_time_is_bounded_for_each_piece_of_work() -> None:
    async with children() as several:
        first = await several.do(os.getpid, limits=LIMITS)
        begun = time.monotonic()
        with pytest.raises(ExhaustedError):
            await several.do(burn, limits=Limits(cpu_seconds=1, wall_seconds=60))
        # It is not tried again, which would take twice as long.
        assert time.monotonic() - begun < 30
        assert await several.do(os.getpid, limits=LIMITS) != first
        await gone(first)


async def test_time_by_the_clock_is_bounded_and_the_work_may_be_tried_later(tmp_path: Path) -> None:
    async with children() as several:
        await several.start()
        with pytest.raises(LateError):
            await several.do(wait, str(tmp_path / "a"), limits=Limits(cpu_seconds=10, wall_seconds=0.5))
        assert await several.do(os.getpid, limits=LIMITS)


async def test_work_whose_process_is_killed_from_outside_is_done_again(tmp_path: Path) -> None:
    async with children() as several:
        assert await several.do(kill_at_first, str(tmp_path / "seen"), limits=LIMITS) == "done"


async def test_work_that_kills_its_process_is_given_up_after_the_second_time(tmp_path: Path) -> None:
    async with children() as several:
        with pytest.raises(ExhaustedError):
            await several.do(kill_always, str(tmp_path / "count"), limits=LIMITS)
        assert (tmp_path / "count").read_text() == "xx"
        assert await several.do(os.getpid, limits=LIMITS)


async def test_idle_processes_that_were_killed_do_not_count_against_the_next_work() -> None:
    async with children(2) as several:
        await several.start()
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        assert await several.do(os.getpid, limits=LIMITS)


async def test_a_process_that_cannot_begin_says_nothing_about_the_work() -> None:
    async with children(prepare=unprepared) as several:
        with pytest.raises(LateError):
            await several.do(os.getpid, limits=LIMITS)


async def test_what_work_raises_is_raised_with_where_it_was() -> None:
    async with children() as several:
        with pytest.raises(ValueError, match="no") as raised:
            await several.do(fail, "value", limits=LIMITS)
        assert "in fail" in "".join(raised.value.__notes__)


@pytest.mark.parametrize("work", ["two parts", "lock"])
async def test_what_cannot_be_sent_is_an_error_and_not_the_end_of_the_process(work: str) -> None:
    async with children() as several:
        first = await several.do(os.getpid, limits=LIMITS)
        with pytest.raises(TypeError, match="no reply can be sent"):
            await (several.do(unpicklable, limits=LIMITS) if work == "lock" else several.do(fail, work, limits=LIMITS))
        assert await several.do(os.getpid, limits=LIMITS) == first


async def test_work_that_ends_its_process_politely_is_given_up_too() -> None:
    async with children() as several:
        with pytest.raises(ExhaustedError):
            await several.do(fail, "exit", limits=LIMITS)


async def test_work_that_nobody_waits_for_is_ended(tmp_path: Path) -> None:
    async with children() as several:
        waiting = asyncio.create_task(several.do(wait, str(tmp_path / "a"), limits=LIMITS))
        pid = await waiting_in(tmp_path / "a")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await gone(pid)
        assert await several.do(os.getpid, limits=LIMITS) != pid


async def test_stopping_ends_everything_and_refuses_nothing_for_good(tmp_path: Path) -> None:
    several = Children(1, MEMORY_BYTES, nothing)
    waiting = asyncio.create_task(several.do(wait, str(tmp_path / "a"), limits=LIMITS))
    pid = await waiting_in(tmp_path / "a")
    several.stop()
    with pytest.raises(LateError):
        await waiting
    assert not psutil.pid_exists(pid)
    with pytest.raises(LateError):
        await several.do(os.getpid, limits=LIMITS)


PARENT = """
import asyncio, sys
from chassis.children import Children, Limits
from tests.support.child_work import nothing, wait

async def main():
    several = Children(2, 200 * 2**20, nothing)
    await asyncio.gather(*(several.do(wait, path, limits=Limits(60, 600)) for path in sys.argv[1:]))

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "parent.py"
    program.write_text(PARENT)
    started = [tmp_path / "a", tmp_path / "b"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, str(program), *map(str, started)], env=environment)  # noqa: ASYNC220 - a few milliseconds
    try:
        pids = [await waiting_in(path) for path in started]
    finally:
        parent.kill()
        parent.wait()
    for pid in pids:
        await gone(pid)


async def test_replaced_children_leave_no_descriptors_threads_or_processes(tmp_path: Path) -> None:
    async with children(2) as several:
        await several.start()
        before = _held()
        for number in range(3):
            with pytest.raises(ExhaustedError):
                await several.do(kill_always, str(tmp_path / "count"), limits=LIMITS)
            waiting = asyncio.create_task(several.do(wait, str(tmp_path / f"{number}"), limits=LIMITS))
            await waiting_in(tmp_path / f"{number}")
            waiting.cancel()
        del waiting  # its traceback holds what it was cancelled in
        await several.start()

        def is_as_before() -> bool:
            gc.collect()
            return all(now <= then for now, then in zip(_held(), before, strict=True))

        await until_true(is_as_before, f"no more than before: {before}, now {_held()}")


def _held() -> tuple[int, int, int]:
    """Return how many descriptors, threads and children this process has."""
    process = psutil.Process()
    multiprocessing.active_children()  # forgets those that are gone
    return process.num_fds(), process.num_threads(), len(process.children())


async def test_work_whose_process_is_killed_from_outside_twice_may_be_tried_later(tmp_path: Path) -> None:
    async with children(1) as several:
        doing = asyncio.create_task(several.do(wait, str(tmp_path / "first"), limits=LIMITS))
        for _ in range(2):
            await waiting_in(tmp_path / "first")
            (tmp_path / "first").unlink()
            for child in multiprocessing.active_children():
                child.kill()
        with pytest.raises(LateError):
            await doing
