"""Limits on the requests that hold memory or a connection while they are served."""

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


class Slots:
    """Limits how many requests of one kind run at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def taken(self, *, close: bool = False) -> Iterator[None]:
        """Hold a slot until the block ends. Raises ProblemError when none is free; `close` ends the connection then."""
        if self._taken >= self._limit:
            raise ProblemError(problems.BUSY, close=close)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
