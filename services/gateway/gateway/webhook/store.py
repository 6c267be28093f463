"""MongoDB: the `webhooks` collection, which has the calls that could not be published yet."""

from datetime import UTC, datetime

from pymongo import ASCENDING

from chassis.mongodb import MongoDB, translating
from contracts import events
from contracts.events import Event


class KeptWebhookStore:
    """The collection; an event is kept as text, since BSON cannot hold every JSON object."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._webhooks = mongodb.collection("webhooks")

    async def prepare(self) -> None:
        """Create the indexes."""
        with translating():
            await self._webhooks.create_index([("kept_at", ASCENDING)], name="oldest")
            await self._webhooks.create_index([("job_id", ASCENDING)], name="job")

    async def keep(self, webhook: Event) -> None:
        """Keep a webhook on a majority's disks; the same again changes nothing."""
        document = {"job_id": webhook.subject, "event": webhook.encode().decode(), "kept_at": datetime.now(UTC)}
        with translating():
            await self._webhooks.update_one({"_id": webhook.id}, {"$setOnInsert": document}, upsert=True)

    async def oldest(self, limit: int) -> list[Event]:
        """Return the `limit` webhooks that have been kept for longest, the oldest first."""
        with translating():
            found = self._webhooks.find({}, {"event": 1}).sort("kept_at", ASCENDING).limit(limit)
            return [events.decode(document["event"].encode()) for document in await found.to_list(limit)]

    async def remove(self, event_id: str) -> None:
        """Remove one that was published."""
        with translating():
            await self._webhooks.delete_one({"_id": event_id})

    async def forget(self, job_id: str) -> None:
        """Remove all of a job."""
        with translating():
            await self._webhooks.delete_many({"job_id": job_id})
