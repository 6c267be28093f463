"""How slowly a file may come: the least speed rises with its size, and the time that it may take has an end."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from gateway.web import pace
from gateway.web.pace import Pace, TooSlowError, paced
from gateway.web.problems import ProblemError

MEBIBYTE = 1024 * 1024


class Clock:
    """A time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: self.now))

    async def passes(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def seconds_held(clock: Clock, bytes_per_second: float, size: int = 500 * MEBIBYTE) -> float | None:
    """How long a client that sends at this speed holds its slot until it is refused, None when it is not."""
    kept = Pace()
    sent = 0
    try:
        while sent < size:
            await kept.waiting(clock.passes(1.0))
            kept.moved(int(bytes_per_second))
            sent += int(bytes_per_second)
    except TooSlowError:
        return clock.now
    return None


@pytest.mark.parametrize(
    ("bytes_per_second", "least", "most"),
    [(1, 30, 32), (1126, 40, 45), (4000, 250, 1300), (5000, 220, 300), (33_000, 7200, 7202), (60_000, 7200, 7202)],
)
async def test_a_slow_client_holds_its_slot_for_a_bounded_time(
    clock: Clock, bytes_per_second: float, least: float, most: float
) -> None:
    held = await seconds_held(clock, bytes_per_second)
    assert held is not None
    assert least <= held <= most


@pytest.mark.parametrize(
    ("bytes_per_second", "size"), [(2000, 60_000), (5000, MEBIBYTE), (20_000, 10 * MEBIBYTE), (80_000, 500 * MEBIBYTE)]
)
async def test_a_client_with_a_poor_network_is_waited_for(clock: Clock, bytes_per_second: float, size: int) -> None:
    assert await seconds_held(clock, bytes_per_second, size) is None


async def test_a_client_is_not_to_blame_for_the_time_that_its_bytes_take_here(clock: Clock) -> None:
    async def quick() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)

    taken = 0
    async for chunk in paced(quick()):
        taken += len(chunk)
        await clock.passes(60)
    assert taken == 100_000


async def test_no_file_takes_longer_than_the_longest_time(clock: Clock) -> None:
    async def quick() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    async def read() -> None:
        async for _ in paced(quick()):
            await clock.passes(60)

    with pytest.raises(ProblemError) as refused:
        await read()
    assert refused.value.kind.code == "upload_too_slow"
    assert pace.LONGEST_SECONDS <= clock.now <= pace.LONGEST_SECONDS + 60


async def test_empty_chunks_are_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "IDLE_SECONDS", 0.01)

    async def empty() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b""

    with pytest.raises(ProblemError) as refused:
        async for _ in paced(empty()):
            pass
    assert (refused.value.kind.code, refused.value.close) == ("upload_too_slow", True)
