"""What may be limited, and what is told of it."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

Unit = Literal["requests", "content-bytes", "concurrent-requests"]
"""Units of draft-ietf-httpapi-ratelimit-headers, section 3.1.2."""


@dataclass(frozen=True)
class Quota:
    """Something that a client uses.

    With a `window` of seconds it is counted anew in each of them, which all begin together at multiples of that (Unix
    time). Without one it is held, and given back; a client that may hold no more comes back after `seconds`. What
    `is_measured` is counted elsewhere from time to time; here is added what has come since the last count.
    """

    name: str
    unit: Unit
    seconds: int
    is_held: bool = False
    is_measured: bool = False

    def window(self, now: float) -> int:
        """Return the number of the window at hand; what is held is in one alone."""
        return 0 if self.is_held else int(now // self.seconds)

    def left(self, now: float) -> int:
        """Return after how many seconds a client that has used all may come again."""
        return self.seconds if self.is_held else max(1, ceil(self.seconds - now % self.seconds))


REQUESTS = Quota("requests", "requests", 60)
STREAMS = Quota("streams", "concurrent-requests", 10, is_held=True)


@dataclass(frozen=True, slots=True)
class Used:
    """How much a client has used of a quota. `seconds` is the rest of the window; None for what is held."""

    quota: Quota
    used: int
    of: int
    seconds: int | None


class QuotaReachedError(Exception):
    """The client may use no more now, and may come again after `retry_after` seconds."""

    def __init__(self, used: Used, retry_after: int) -> None:
        super().__init__(used.quota.name)
        self.used = used
        self.retry_after = retry_after
