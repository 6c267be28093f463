"""MongoDB: the `spent_tickets` collection, which lets each ticket open one stream."""

from datetime import UTC, datetime

from chassis.mongodb import Index, Indexes, MongoDB, insert_new, translating

KEPT_SECONDS = 300
"""Longer than a ticket counts."""


class TicketStore:
    """The collection; MongoDB removes what is too old to count."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._spent = mongodb.collection("spent_tickets")
        self._indexes = Indexes(self._spent, Index("spent_at", name="kept", expireAfterSeconds=KEPT_SECONDS))

    async def spend(self, ticket_id: str) -> bool:
        """Note that the ticket opens a stream now; False when it has opened one before."""
        with translating():
            await self._indexes.ensure()
        (is_new,) = await insert_new(self._spent, [{"_id": ticket_id, "spent_at": datetime.now(UTC)}])
        return is_new
