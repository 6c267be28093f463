"""Whether the analysis server has room: how much is asked of it at once, who waits, and how long it wants to rest."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from time import monotonic

AFTER_A_REST = 5
"""After the analysis server has rested, so many at once are asked for until it has taken one on."""


class Room:
    """Keeps what this replica knows between two looks into the collection; `limit` is ANALYSIS_IN_FLIGHT.

    What is asked for and has not ended is counted in the collection, for all replicas together. Until the next count
    each replica adds what it asks for, and subtracts what ends here, so all together may exceed the limit a little.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._counted = 0
        self._since = 0
        self._left_over = False
        self._recorded = False
        self._rests_until = 0.0
        self._has_rested = False
        self._woken = asyncio.Event()

    @property
    def free(self) -> int:
        """How many analyses may be asked for now; 0 while the analysis server rests, and few after that."""
        if self.rests:
            return 0
        most = AFTER_A_REST if self._has_rested else sys.maxsize
        return most if self._limit is None else min(max(self._limit - self._counted - self._since, 0), most)

    @property
    def rests(self) -> bool:
        """Whether the analysis server is given time, because it did not take an analysis on."""
        return monotonic() < self._rests_until

    @property
    def somebody_waits(self) -> bool:
        """Whether an analysis is due and was not asked for at the last look, or was recorded as waiting since."""
        return self._left_over or self._recorded

    async def count(self, count_asked: Callable[[int], Awaitable[int]]) -> None:
        """Have counted what is asked for; without a limit nobody needs to know."""
        if self._limit is None:
            return
        before = self._since
        self._counted = await count_asked(self._limit)
        # What was asked for during the count may be in it: it counts twice rather than not at all.
        self._since -= before

    def take(self) -> None:
        """Note that an analysis is about to be asked for."""
        self._since += 1

    def give_back(self) -> None:
        """Note that one that was asked for has ended, or was not asked for after all."""
        self._since -= 1
        if self.somebody_waits:
            self._woken.set()

    def rest(self, seconds: float) -> None:
        """Have nothing that waits asked for during that time."""
        self._rests_until = max(self._rests_until, monotonic() + seconds)
        self._has_rested = True

    def taken_on(self) -> None:
        """Note that the analysis server has taken an analysis on."""
        self._has_rested = False

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
