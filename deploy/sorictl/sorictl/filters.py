"""Selects dead letters by id, queue, job, reason and age."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from contracts import topology
from sorictl.letter import DeadLetter

_AGE = re.compile(r"(\d{1,6})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Filters:
    """A letter must match every filter that is given; an absent filter matches everything."""

    queues: tuple[topology.Queue, ...] = topology.QUEUES
    ids: frozenset[str] = frozenset()
    job: str | None = None
    reason: str | None = None
    set_aside_before: datetime | None = None
    set_aside_after: datetime | None = None

    def match(self, letter: DeadLetter) -> bool:
        """Tell whether a letter matches; one of unknown age is neither older nor newer than anything."""
        return (
            (not self.ids or letter.id in self.ids or letter.event_id in self.ids)
            and (self.job is None or letter.job_id == self.job)
            and (self.reason is None or self.reason.casefold() in letter.reason.casefold())
            and self._match_age(letter.last_failure)
        )

    def _match_age(self, time: datetime | None) -> bool:
        if time is None:
            return self.set_aside_before is None and self.set_aside_after is None
        return (self.set_aside_before is None or time < self.set_aside_before) and (
            self.set_aside_after is None or time > self.set_aside_after
        )


def parse_age(text: str) -> timedelta:
    """Read an age such as 90s, 10m, 2h, 3d or 1w; ValueError says what one looks like."""
    match = _AGE.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no age: write 90s, 10m, 2h, 3d or 1w")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def queues_named(patterns: Iterable[str]) -> tuple[topology.Queue, ...]:
    """Return the queues of these names, with or without `.dead`, or patterns such as `notifier.*`; all for none.

    ValueError when one of them names no queue.
    """
    wanted = [pattern.removesuffix(".dead") for pattern in patterns]
    for pattern in wanted:
        if not any(fnmatchcase(queue.name, pattern) for queue in topology.QUEUES):
            names = ", ".join(queue.name for queue in topology.QUEUES)
            raise ValueError(f"no queue is called {pattern}; there are {names}")
    return tuple(
        queue for queue in topology.QUEUES if not wanted or any(fnmatchcase(queue.name, name) for name in wanted)
    )
