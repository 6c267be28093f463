"""A circuit breaker: asks a server that is away nothing for a while, then only little until it answers again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic


class Breaker:
    """Opens for `rest_seconds` after `failures` failures in a row.

    After the rest it lets `failures` requests through at once until one succeeds. The usual half-open breaker lets one
    through: that might always be the one request that the server cannot handle, and it would hold up all the others.
    """

    def __init__(self, failures: int, rest_seconds: float) -> None:
        self._limit = failures
        self._rest_seconds = rest_seconds
        self._failed = 0
        self._open_until = 0.0
        self._rest_asked_until = 0.0
        self._trials = asyncio.Semaphore(failures)
        self.is_tripped = False

    def open_for(self) -> float:
        """Return for how many seconds no request is let through; 0 when requests are.

        It is open, or the server has asked for a rest.
        """
        return max(self._open_until - monotonic(), self._rest_asked_until - monotonic(), 0.0)

    @property
    def is_open(self) -> bool:
        """Tell whether failures have opened it, and its rest is not over."""
        return monotonic() < self._open_until

    @asynccontextmanager
    async def trial(self) -> AsyncIterator[None]:
        """Enter at once; after the breaker has opened and until the server answers, wait for one of few places."""
        if not self.is_tripped:
            yield
            return
        async with self._trials:
            yield

    def close_if_rested(self) -> None:
        """Reset the count once the rest is over: it takes as many failures again to open."""
        if self._failed >= self._limit and not self.is_open:
            self._failed = 0

    def succeeded(self) -> bool:
        """Note a success, which closes the breaker; tell whether it is the first since the breaker opened."""
        self._failed = 0
        self._open_until = 0.0
        was_tripped, self.is_tripped = self.is_tripped, False
        return was_tripped

    def failed(self, rest_seconds: float | None = None) -> bool:
        """Note a failure, with the seconds of rest that the server asked for; tell whether it opened the breaker."""
        now = monotonic()
        self._failed += 1
        opens = self._failed >= self._limit
        if opens:
            self._open_until = now + self._rest_seconds
        self._rest_asked_until = max(self._rest_asked_until, now + (rest_seconds or 0.0))
        trips = opens and not self.is_tripped
        self.is_tripped = self.is_tripped or opens
        return trips
