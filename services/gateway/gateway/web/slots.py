"""Limits on the requests that hold memory or a connection while they are served."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from contracts import problems
from gateway.web.problems import ProblemError

MAX_UPLOADS = 100
"""Files that this process takes in at once; each may hold one part of 5 MiB in memory."""
MAX_REFERENCES = 4
"""Reference audio that this process takes in at once; each lies on its disk until it was decoded."""
MAX_READERS = 32
"""Files that this process gives out at once; each holds a connection to S3 for as long as its reader takes."""
RETRY_AFTER_SECONDS = 5


class Slots:
    """Limits how many requests of one kind run at once, and how many of them are one client's.

    A client may hold three quarters of the slots that no other client holds, and one in any case. So one that is alone
    may hold many (a school may stand behind its address), and leaves a quarter to others whatever it does.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = Counter[str]()
        """How many slots each client holds; a client that holds none is not in it."""

    @contextmanager
    def taken(self, client: str, *, close: bool = False) -> Iterator[None]:
        """Hold a slot until the block ends. Raises ProblemError when none is free; `close` ends the connection then."""
        self._check(client, close=close)
        self._held[client] += 1
        try:
            yield
        finally:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]

    def _check(self, client: str, *, close: bool) -> None:
        held, taken = self._held[client], self._held.total()
        most = max(1, (self._limit - (taken - held)) * 3 // 4)
        if held >= most:
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            raise ProblemError(problems.TOO_MANY_AT_ONCE, close=close, headers=headers)
        if taken >= self._limit:
            raise ProblemError(problems.BUSY, close=close)
