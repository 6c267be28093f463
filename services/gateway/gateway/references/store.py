"""MongoDB: the `references` collection, which has a record of every object under references/ until it is swept."""

from datetime import UTC, datetime

from chassis.mongodb import MongoDB, translating
from gateway.references.references import Record


class ReferenceStore:
    """The collection; which references are used is read from the tokens."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._references = mongodb.collection("references")
        self._tokens = mongodb.collection("tokens")

    async def add(self, key: str, media_type: str) -> None:
        """Add the record of a new object, which is unused at first."""
        record = {"_id": key, "media_type": media_type, "unused_since": datetime.now(UTC), "swept_at": None}
        with translating():
            await self._references.insert_one(record)

    async def media_type(self, key: str) -> str | None:
        """Return what is recorded of an object, None when nothing is."""
        with translating():
            found = await self._references.find_one({"_id": key}, {"media_type": 1})
        return None if found is None else found.get("media_type")

    async def renew(self, key: str) -> bool:
        """Count its unused time from now on; False when it is being swept."""
        with translating():
            renewed = await self._references.update_one(
                {"_id": key, "swept_at": None}, {"$set": {"unused_since": datetime.now(UTC)}}
            )
        return bool(renewed.matched_count)

    async def all(self) -> list[Record]:
        """Return every record."""
        with translating():
            return [
                Record(found["_id"], found["unused_since"], found["swept_at"])
                async for found in self._references.find()
            ]

    async def named(self) -> list[str]:
        """Return the address of every token's reference audio."""
        query = {"reference_audio_url": {"$type": "string"}}
        with translating():
            naming = self._tokens.find(query, {"_id": 0, "reference_audio_url": 1})
            return [found["reference_audio_url"] async for found in naming]

    async def mark_used(self, keys: list[str]) -> None:
        """Record that these are used, unless they are being swept."""
        if keys:
            with translating():
                await self._references.update_many(
                    {"_id": {"$in": keys}, "swept_at": None}, {"$set": {"unused_since": None}}
                )

    async def mark_unused(self, keys: list[str]) -> None:
        """Record that these are unused from now on, if they were used."""
        if keys:
            with translating():
                await self._references.update_many(
                    {"_id": {"$in": keys}, "unused_since": None}, {"$set": {"unused_since": datetime.now(UTC)}}
                )

    async def condemn(self, record: Record) -> bool:
        """Record that one is being swept; False when the record has changed meanwhile."""
        unchanged = {"_id": record.key, "unused_since": record.unused_since, "swept_at": None}
        with translating():
            condemned = await self._references.update_one(unchanged, {"$set": {"swept_at": datetime.now(UTC)}})
        return bool(condemned.matched_count)

    async def forget(self, key: str) -> None:
        """Remove the record."""
        with translating():
            await self._references.delete_one({"_id": key})
