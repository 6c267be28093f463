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
            await self._webhooks.create_index([("publish_at", ASCENDING)], name="due")
            await self._webhooks.create_index([("job_id", ASCENDING)], name="job")

    async def keep(self, webhook: Event) -> None:
        """Keep a webhook on a majority's disks; the same again changes nothing."""
        document = {"job_id": webhook.subject, "event": webhook.encode().decode(), "publish_at": datetime.now(UTC)}
        with translating():
            await self._webhooks.update_one({"_id": webhook.id}, {"$setOnInsert": document}, upsert=True)

    async def due(self, now: datetime, limit: int) -> list[Event]:
        """Return up to `limit` webhooks that are not held back, the oldest first."""
        query = {"publish_at": {"$lte": now}}
        with translating():
            found = self._webhooks.find(query, {"event": 1}).sort("publish_at", ASCENDING).limit(limit)
            return [events.decode(document["event"].encode()) for document in await found.to_list(limit)]

    async def hold_back_others(self, webhook: Event, until: datetime) -> None:
        """Have all other webhooks of its job wait until then."""
        query = {"job_id": webhook.subject, "_id": {"$ne": webhook.id}}
        with translating():
            await self._webhooks.update_many(query, {"$set": {"publish_at": until}})

    async def remove(self, event_id: str) -> None:
        """Remove one that was published."""
        with translating():
            await self._webhooks.delete_one({"_id": event_id})

    async def forget(self, job_id: str) -> None:
        """Remove all of a job."""
        with translating():
            await self._webhooks.delete_many({"job_id": job_id})
