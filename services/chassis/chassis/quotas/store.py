"""MongoDB: the `usage` collection, through which replicas tell one another what they have counted."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ReplaceOne, WriteConcern

from chassis.mongodb import Index, Indexes, MongoDB, translating
from chassis.quotas.counts import Figures, Report
from chassis.quotas.quota import Quota
from chassis.quotas.replicas import Beat

BEAT = ""
"""In place of a client: the sign of life of a replica."""
KEPT = timedelta(minutes=5)
"""For how long a document is kept after the last of its windows; what is held is told again before that."""


class UsageStore:
    """The collection: a document for each replica and client, which MongoDB removes once it says nothing any more.

    A client is an owner's pseudonym or an address. Figures are estimates and told again: no write waits for a disk.
    """

    def __init__(self, mongodb: MongoDB, quotas: Collection[Quota]) -> None:
        self._usage = mongodb.collection("usage").with_options(write_concern=WriteConcern(1))
        self._seconds = {quota.name: quota.seconds for quota in quotas if not quota.is_held}
        self._indexes = Indexes(
            self._usage, Index("client", name="client"), Index("expires_at", name="over", expireAfterSeconds=0)
        )

    async def tell(self, beat: Beat, figures: Mapping[str, Figures]) -> None:
        """Keep what this replica has counted of these clients, in place of what it told of them before."""
        now = datetime.now(UTC)
        told: dict[str, dict[str, Any]] = {
            BEAT: {"service": beat.service, "number": beat.number, "expires_at": now + KEPT}
        }
        for client, used in figures.items():
            told[client] = {"figures": used, "expires_at": self._end(used, now) + KEPT}
        with translating():
            await self._indexes.ensure()
            await self._usage.bulk_write(
                [
                    ReplaceOne(
                        {"_id": _id(beat.replica, client)},
                        {"client": client, "replica": beat.replica, **rest},
                        upsert=True,
                    )
                    for client, rest in told.items()
                ],
                ordered=False,
            )

    async def hear(self, replica: str, clients: Collection[str]) -> tuple[list[Beat], list[Report]]:
        """Return the signs of life of all other replicas, and what they have told of these clients."""
        query = {"client": {"$in": [BEAT, *clients]}, "replica": {"$ne": replica}}
        with translating():
            documents = await self._usage.find(query, {"_id": 0, "expires_at": 0}).to_list(None)
        beats = [Beat(one["replica"], one["service"], one["number"]) for one in documents if one["client"] == BEAT]
        return beats, [_report(one) for one in documents if one["client"] != BEAT]

    async def leave(self, replica: str) -> None:
        """Forget the replica's sign of life."""
        with translating():
            await self._usage.delete_one({"_id": _id(replica, BEAT)})

    def _end(self, used: Figures, now: datetime) -> datetime:
        """Return when the last of the windows ends."""
        ends = [
            datetime.fromtimestamp((window + 1) * self._seconds[name], UTC)
            for name, (window, amount) in used.items()
            if amount and name in self._seconds
        ]
        return max([now, *ends])


def _id(replica: str, client: str) -> str:
    return f"{replica} {client}"


def _report(document: dict[str, Any]) -> Report:
    figures = {name: (int(window), int(amount)) for name, (window, amount) in document["figures"].items()}
    return Report(document["replica"], document["client"], figures)
