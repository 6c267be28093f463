"""The partitions of job ids that this replica listens in: so it is given what its own listeners may need, and no more.

That the edge sends all listeners of a partition to one replica makes this cheap. Nothing depends on it.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Protocol

from chassis.periodic import Periodic, pace
from contracts import topology

IDLE_AFTER = timedelta(minutes=10)
"""How long a partition stays bound without listeners. Most pages come back, or another one does, and need it again."""
LONGEST_LOOK_SECONDS = 60.0


class Bindings(Protocol):
    """The keys that this process hears; `chassis.rabbitmq.fan_out.FanOut` implements it."""

    async def bind(self, key: str) -> None:
        """Return once messages with this key come, or as soon as it is clear that they cannot be waited for."""

    def unbind(self, key: str) -> None:
        """Have messages with this key come no more."""


class Partitions:
    """Binds a partition when its first listener comes, and gives it up `idle_after` its last one has left.

    `listened` returns the ids of the jobs that have listeners.
    """

    def __init__(
        self, bindings: Bindings, listened: Callable[[], Iterable[str]], idle_after: timedelta = IDLE_AFTER
    ) -> None:
        self._bindings = bindings
        self._listened = listened
        self._idle_seconds = idle_after.total_seconds()
        self._used: dict[str, float] = {}
        self._looking = Periodic(
            self._release_idle, seconds=pace(idle_after, LONGEST_LOOK_SECONDS), waiting="partitions are not released"
        )

    def start(self) -> None:
        """Begin to give up what has no listeners."""
        self._looking.start()

    async def stop(self) -> None:
        """Give nothing up any more."""
        await self._looking.stop()

    async def enter(self, job_id: str) -> None:
        """Return once this replica is told of the job's changes. Whoever reads the job after that misses none."""
        partition = topology.partition(job_id)
        self._used[partition] = _now()
        await self._bindings.bind(partition)

    async def _release_idle(self) -> None:
        now = _now()
        self._used |= {topology.partition(job_id): now for job_id in self._listened()}
        for partition in [one for one, used in self._used.items() if now - used >= self._idle_seconds]:
            del self._used[partition]
            self._bindings.unbind(partition)


def _now() -> float:
    return asyncio.get_running_loop().time()
