"""MongoDB: reads job documents and makes one named change at a time; never a replace, never an upsert."""

from datetime import UTC
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pydantic import BaseModel
from pymongo import ReadPreference, WriteConcern

from contracts.job import Change, Job

ANSWER_MS = 5000
"""How long MongoDB may take before a message is tried again, milliseconds."""


class Jobs:
    """The `jobs` collection as the notifier uses it."""

    def __init__(self, url: str) -> None:
        self._client: Any = AsyncIOMotorClient(
            url, serverSelectionTimeoutMS=ANSWER_MS, timeoutMS=ANSWER_MS, connectTimeoutMS=ANSWER_MS
        )
        self._jobs = self._client.get_default_database("sori").get_collection(
            "jobs",
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history."""
        found = await self._jobs.find_one({"_id": job_id})
        return None if found is None else Job.model_validate(found)

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job is no longer at this revision, or has had the event meanwhile."""
        unchanged = {"_id": job.job_id, "revision": job.revision, "history.event_id": {"$ne": change.entry.event_id}}
        update: dict[str, Any] = {
            "$set": {**{name: _plain(value) for name, value in change.fields.items()}, "revision": change.revision},
            "$push": {"history": change.entry.model_dump()},
        }
        if change.published:
            update["$unset"] = {"outbox": ""}
        result = await self._jobs.update_one(unchanged, update)
        return bool(result.matched_count)

    async def is_up(self) -> bool:
        """Tell whether a primary answers."""
        await self._client.admin.command("ping")
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value
