"""How many requests of one kind a process serves at once."""

from collections.abc import Iterator
from contextlib import contextmanager

from contracts import problems
from gateway.errors import ProblemError

MAX_UPLOADS = 100
"""Files that this process takes in at once; each may hold one part of 5 MiB in memory."""
MAX_READERS = 32
"""Files that this process gives out at once; each holds a connection to S3 for as long as its reader takes."""


class Places:
    """So many, for requests that hold something while they are served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @contextmanager
    def taken(self, *, close: bool = False) -> Iterator[None]:
        """Hold a place until the block ends; ProblemError when there is none, which may end the connection."""
        if self._taken >= self._limit:
            raise ProblemError(problems.BUSY, close=close)
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
