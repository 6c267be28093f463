"""Whether the analysis server has room: how much is asked of it at once, who waits, and how much it says it bears."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import monotonic

AFTER_A_REST = 5
"""So many more than the analysis server was known to bear are asked for once it has rested."""
MOST_COUNTED = 1000
"""Where nothing else limits them, so many analyses that are asked for are counted, no more."""

Count = Callable[[int], Awaitable[int]]


class Room:
    """Keeps what this replica knows between two looks into the collection; `limit` is ANALYSIS_IN_FLIGHT.

    What is asked for and has not ended is counted in the collection, for all replicas together. Until the next count
    each replica adds what it asks for, and subtracts what ends here, so all together may exceed the limit a little.

    A server that is busy bears what it has, for as long as it wants to rest: each that ends is followed by another.
    Then a few more are asked for, and more for as long as it takes them on.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._counted = 0
        self._since = 0
        self._being_asked = 0
        self._bears: int | None = None
        self._left_over = False
        self._recorded = False
        self._rests_until = 0.0
        self._woken = asyncio.Event()

    @property
    def free(self) -> int:
        """How many analyses may be asked for now."""
        most = sys.maxsize if self._limit is None else self._limit
        if self._bears is not None:
            most = min(most, self._bears + (0 if self.rests else AFTER_A_REST))
        return max(most - self._in_flight, 0)

    @property
    def rests(self) -> bool:
        """Whether the analysis server is asked for no more than it has, because it said that it was busy."""
        return monotonic() < self._rests_until

    @property
    def somebody_waits(self) -> bool:
        """Whether an analysis is due and was not asked for at the last look, or was recorded as waiting since."""
        return self._left_over or self._recorded

    async def count(self, count_asked: Count) -> None:
        """Have counted what is asked for; while nothing limits it, nobody needs to know."""
        if self._bears is not None and not self.rests and not self.somebody_waits:
            self._bears = None
        if self._limit is None and self._bears is None:
            return
        before = self._since
        self._counted = await count_asked(MOST_COUNTED if self._limit is None else self._limit)
        # What was asked for during the count may be in it: it counts twice rather than not at all.
        self._since -= before

    async def busy(self, seconds: float, count_asked: Count) -> None:
        """Note that the analysis server did not take one on, since it has enough, and wants to rest for so long.

        The one that it did not take on is still in flight.
        """
        self._rests_until = max(self._rests_until, monotonic() + seconds)
        if self._bears is None:
            self._bears = 0
            await self.count(count_asked)
            self._bears = self._in_flight
        self._bears = max(min(self._bears, self._in_flight - 1), 0)

    def take(self) -> None:
        """Note that an analysis is asked for: it is recorded as such."""
        self._since += 1

    def give_back(self, *, not_taken: bool = False) -> None:
        """Note that one that was asked for has ended, or was not asked for, or `not_taken` on after all."""
        self._since -= 1
        self._one_less(not_taken=not_taken)

    def begin_asking(self) -> None:
        """Note that one that waits is about to be asked for. It goes on waiting, so no count has it."""
        self._being_asked += 1

    def end_asking(self, *, taken: bool) -> None:
        """Note that one is no longer being asked for: it was taken on, or goes on waiting."""
        self._being_asked -= 1
        if taken:
            self.take()
        else:
            self._one_less(not_taken=True)

    def taken_on(self) -> None:
        """Note that the analysis server has taken an analysis on."""
        if self._bears is not None and not self.rests:
            self._bears = max(self._bears, self._in_flight)

    def recorded(self) -> None:
        """Note that an analysis was recorded as waiting."""
        self._recorded = True
        if self.free:
            self._woken.set()

    def begin_look(self) -> None:
        """Note that somebody looks for what waits: what is recorded from now on may escape that look."""
        self._recorded = False

    def left_over(self, some: bool) -> None:
        """Note whether the look found more than can be asked for."""
        self._left_over = some

    def wake(self) -> None:
        """Have somebody look for what waits."""
        self._woken.set()

    async def woken(self) -> None:
        """Return once somebody should look for what waits."""
        await self._woken.wait()
        self._woken.clear()

    @property
    def _in_flight(self) -> int:
        return max(self._counted + self._since, 0) + self._being_asked

    def _one_less(self, *, not_taken: bool) -> None:
        if not_taken and self.rests and self._bears is not None:
            # Several that were asked together are refused together: what is left then is what it bears.
            self._bears = min(self._bears, self._in_flight)
        if self.somebody_waits:
            self._woken.set()
