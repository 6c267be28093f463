"""What replicas tell one another of their clients, in memory, as `chassis.quotas.store` keeps it."""

from collections.abc import Collection, Mapping

from chassis.errors import AwayError
from chassis.quotas.counts import Figures, Report
from chassis.quotas.replicas import Beat


class Usage:
    """The collection; `is_away` has every question fail."""

    def __init__(self) -> None:
        self.beats: dict[str, Beat] = {}
        self.told: dict[tuple[str, str], Figures] = {}
        self.is_away = False

    async def tell(self, beat: Beat, figures: Mapping[str, Figures]) -> None:
        """Keep what a replica has counted, in place of what it told before."""
        self._turn()
        self.beats[beat.replica] = beat
        self.told.update({(beat.replica, client): used for client, used in figures.items()})

    async def hear(self, replica: str, clients: Collection[str]) -> tuple[list[Beat], list[Report]]:
        """Return the signs of life of the others, and what they told of these clients."""
        self._turn()
        beats = [beat for name, beat in self.beats.items() if name != replica]
        told = [(name, client, used) for (name, client), used in self.told.items() if name != replica]
        return beats, [Report(name, client, used) for name, client, used in told if client in clients]

    async def leave(self, replica: str) -> None:
        """Forget the replica's sign of life."""
        self._turn()
        del self.beats[replica]

    def _turn(self) -> None:
        if self.is_away:
            raise AwayError("MongoDB", "down")
