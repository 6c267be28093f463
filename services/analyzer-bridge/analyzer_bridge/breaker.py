"""A circuit breaker: leaves a server that is away alone for a while, then asks little of it until it answers again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic


class Breaker:
    """Opens after `failures` in a row, for `rest_seconds`.

    When it closes again, so many are let through at once until one succeeds. The usual half-open breaker lets one
    through: that one might always be what the server cannot bear, and would hold up all the others.
    """

    def __init__(self, failures: int, rest_seconds: float) -> None:
        self._limit = failures
        self._rest_seconds = rest_seconds
        self._failed = 0
        self._open_until = 0.0
        self._trials = asyncio.Semaphore(failures)
        self.is_tripped = False

    def open_for(self) -> float:
        """Return for how many seconds nothing is let through; 0 when something is."""
        return max(self._open_until - monotonic(), 0.0)

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        """Wait for one of the few places there are while the server has not answered again; at once otherwise."""
        if not self.is_tripped:
            yield
            return
        async with self._trials:
            yield

    def close_if_rested(self) -> None:
        """Count anew once the rest is over: it takes as many failures to open again."""
        if self._failed >= self._limit and not self.open_for():
            self._failed = 0

    def succeeded(self) -> bool:
        """Note a success; tell whether it is the first since the breaker opened."""
        self._failed = 0
        was_tripped, self.is_tripped = self.is_tripped, False
        return was_tripped

    def failed(self, rest_seconds: float | None = None) -> bool:
        """Note a failure, with the rest that the server asked for; tell whether this made the breaker open."""
        now = monotonic()
        self._failed += 1
        opens = self._failed >= self._limit
        rest = max(rest_seconds or 0.0, self._rest_seconds if opens else 0.0)
        self._open_until = max(self._open_until, now + rest)
        trips = opens and not self.is_tripped
        self.is_tripped = self.is_tripped or opens
        return trips
