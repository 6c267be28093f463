"""MongoDB: the `references` collection, which knows every object under references/ until it is swept."""

from datetime import UTC, datetime
from typing import Any

from gateway.references import Record
from gateway.store import collection, noticing_outages


class ReferenceRecords:
    """The collection; whether a reference is used is read from `tokens`."""

    def __init__(self, client: Any) -> None:
        self._references = collection(client, "references")
        self._tokens = collection(client, "tokens")

    async def add(self, key: str) -> None:
        """Keep a new one, which is unused as yet."""
        with noticing_outages():
            await self._references.insert_one({"_id": key, "unused_since": datetime.now(UTC), "swept_at": None})

    async def renew(self, key: str) -> bool:
        """Let the time for which it is unused begin anew; False when it is being swept."""
        with noticing_outages():
            renewed = await self._references.update_one(
                {"_id": key, "swept_at": None}, {"$set": {"unused_since": datetime.now(UTC)}}
            )
        return bool(renewed.matched_count)

    async def all(self) -> list[Record]:
        """Return every record."""
        return [
            Record(found["_id"], found["unused_since"], found["swept_at"]) async for found in self._references.find()
        ]

    async def named(self) -> list[str]:
        """Return every address of a reference that a token has."""
        naming = self._tokens.find({"reference_audio_url": {"$type": "string"}}, {"_id": 0, "reference_audio_url": 1})
        return [found["reference_audio_url"] async for found in naming]

    async def mark_used(self, keys: list[str]) -> None:
        """Note that these are used, unless they are being swept."""
        if keys:
            await self._references.update_many(
                {"_id": {"$in": keys}, "swept_at": None}, {"$set": {"unused_since": None}}
            )

    async def mark_unused(self, keys: list[str]) -> None:
        """Note that those of these that were used are not any more."""
        if keys:
            await self._references.update_many(
                {"_id": {"$in": keys}, "unused_since": None}, {"$set": {"unused_since": datetime.now(UTC)}}
            )

    async def condemn(self, record: Record) -> bool:
        """Note that one is being swept; False when it is no longer as it was."""
        as_it_was = {"_id": record.key, "unused_since": record.unused_since, "swept_at": None}
        condemned = await self._references.update_one(as_it_was, {"$set": {"swept_at": datetime.now(UTC)}})
        return bool(condemned.matched_count)

    async def forget(self, key: str) -> None:
        """Remove the record."""
        await self._references.delete_one({"_id": key})
