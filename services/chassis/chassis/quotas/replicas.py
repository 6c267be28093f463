"""Tells the other replicas once a second what this one has counted, and hears what they have."""

import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from chassis.errors import BackEndError
from chassis.periodic import Periodic
from chassis.quotas.counts import Counts, Figures, Report
from chassis.quotas.quota import Quota, Used

LOOK_SECONDS = 1.0
MOST_MISSED = 5
"""How often in a row a replica may not have been heard anew until it counts as gone."""


@dataclass(frozen=True)
class Beat:
    """The sign of life of a replica; each has another `number`."""

    replica: str
    service: str
    number: int


class Shared(Protocol):
    """What the replicas tell one another; `chassis.quotas.store.UsageStore` implements it."""

    async def tell(self, beat: Beat, figures: Mapping[str, Figures]) -> None:
        """Keep what this replica has counted of these clients, in place of what it told of them before."""

    async def hear(self, replica: str, clients: Collection[str]) -> tuple[list[Beat], list[Report]]:
        """Return the signs of life of all other replicas, and what they have told of these clients."""

    async def leave(self, replica: str) -> None:
        """Forget the replica's sign of life."""


Measure = Callable[[Collection[str]], Awaitable[Mapping[str, int]]]
"""Counts for clients what is not counted here; a client that is not in the answer has none."""


class Replicas:
    """The other replicas, as this one knows of them. While MongoDB is away, each goes on with what it knows."""

    def __init__(
        self, service: str, counts: Counts, shared: Shared, measures: Mapping[Quota, Measure] | None = None
    ) -> None:
        self._service = service
        self._counts = counts
        self._shared = shared
        self._measures = {quota: measure for quota, measure in (measures or {}).items() if quota in counts.limits}
        self._replica = secrets.token_hex(8)
        self._number = 0
        self._numbers: dict[str, int] = {}
        self._missed: dict[str, int] = {}
        self._living: set[str] = set()
        self._looking = Periodic(self.look, seconds=LOOK_SECONDS, waiting="limits are not shared", at_once=True)

    def start(self) -> None:
        """Begin, if there is anything to count."""
        if self._counts.limits:
            self._looking.start()

    async def stop(self) -> None:
        """Stop, and tell the others."""
        await self._looking.stop()
        if self._number:
            with suppress(BackEndError):  # they notice by themselves
                await self._shared.leave(self._replica)

    async def look(self) -> None:
        """Tell, then hear, then measure."""
        changed = self._counts.changed()
        self._number += 1
        try:
            await self._shared.tell(Beat(self._replica, self._service, self._number), changed)
        except Exception:
            self._counts.not_told(changed)
            raise
        clients = self._counts.lately()
        beats, reports = await self._shared.hear(self._replica, clients)
        from_all = self._note(beats)
        self._counts.learn(clients, reports, self._living)
        self._counts.heard(clients, from_all=from_all)
        for quota, measure in self._measures.items():
            await self._measure(quota, measure, self._counts.asked(quota, clients))

    async def usage(self, client: str) -> list[Used]:
        """Return how much the client has used of each quota, as all replicas have told by now, or as is known here."""
        with suppress(BackEndError):
            _, reports = await self._shared.hear(self._replica, [client])
            self._counts.learn([client], reports, self._living)
            for quota, measure in self._measures.items():
                await self._measure(quota, measure, [client])
        return self._counts.usage(client)

    def _note(self, beats: Collection[Beat]) -> bool:
        """Note which replicas live. Return whether each of this service has told anew of what it has counted."""
        missed = {
            beat.replica: self._missed[beat.replica] + 1 if self._numbers.get(beat.replica) == beat.number else 0
            for beat in beats
        }
        self._missed, self._numbers = missed, {beat.replica: beat.number for beat in beats}
        self._living = {replica for replica, times in missed.items() if times < MOST_MISSED}
        peers = [beat.replica for beat in beats if beat.service == self._service and beat.replica in self._living]
        self._counts.peers = len(peers)
        return not any(missed[replica] for replica in peers)

    async def _measure(self, quota: Quota, measure: Measure, clients: Collection[str]) -> None:
        if clients:
            found = await measure(clients)
            self._counts.measured(quota, {client: found.get(client, 0) for client in clients})
