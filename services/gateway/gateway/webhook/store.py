"""MongoDB: the `webhooks` collection, which has the calls that could not be published yet."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from pymongo import ASCENDING

from chassis.mongodb import MongoDB, translating
from contracts import events
from contracts.events import Event, InvalidEventError

log = structlog.get_logger()

UNREADABLE_WAITS = timedelta(hours=1)


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
            documents = await found.to_list(limit)
        return [event for document in documents if (event := await self._read(document)) is not None]

    async def hold_back_others(self, webhooks: list[Event], until: datetime) -> None:
        """Have all other webhooks of their jobs wait until then."""
        jobs, ids = [webhook.subject for webhook in webhooks], [webhook.id for webhook in webhooks]
        query = {"job_id": {"$in": jobs}, "_id": {"$nin": ids}}
        with translating():
            await self._webhooks.update_many(query, {"$set": {"publish_at": until}})

    async def remove(self, event_ids: list[str]) -> None:
        """Remove those that were published."""
        with translating():
            await self._webhooks.delete_many({"_id": {"$in": event_ids}})

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all of these jobs."""
        with translating():
            await self._webhooks.delete_many({"job_id": {"$in": list(job_ids)}})

    async def _read(self, document: dict[str, Any]) -> Event | None:
        """Return the event of a document. One that cannot be read must not hold up the others: it waits an hour.

        A newer gateway may have written it, and will publish it.
        """
        try:
            return events.decode(document["event"].encode())
        except InvalidEventError as error:
            log.error("a kept webhook is no event", event_id=document["_id"], reason=str(error))  # noqa: TRY400 - a traceback adds nothing to the reason
        later = {"$set": {"publish_at": datetime.now(UTC) + UNREADABLE_WAITS}}
        with translating():
            await self._webhooks.update_one({"_id": document["_id"]}, later)
        return None
