"""MongoDB: inserts jobs, reads them, and finds those whose event is still to be published."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, ReadPreference, WriteConcern
from pymongo.errors import PyMongoError

from contracts.job import Job
from gateway.errors import BackEndError

ANSWER_MS = 5000
"""How long MongoDB may take before a request is refused, milliseconds."""
_UNSEEN = {"history": 0, "outbox": 0, "audio": 0}


class Jobs:
    """The `jobs` collection as the gateway uses it: it inserts, and reads."""

    def __init__(self, url: str) -> None:
        self._client: Any = AsyncIOMotorClient(
            url, serverSelectionTimeoutMS=ANSWER_MS, timeoutMS=ANSWER_MS, connectTimeoutMS=ANSWER_MS
        )
        database = self._client.get_default_database("sori")
        self._jobs = database.get_collection(
            "jobs",
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )

    async def prepare(self) -> None:
        """Create the index that the relay's question needs."""
        await self._jobs.create_index(
            [("created_at", ASCENDING)], name="outbox", partialFilterExpression={"outbox": {"$type": "string"}}
        )

    async def insert(self, job: Job) -> None:
        """Keep a new job; it is on a majority's disks when this returns."""
        try:
            await self._jobs.insert_one(job.model_dump(by_alias=True))
        except PyMongoError as error:
            raise BackEndError("MongoDB") from error

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        found = await self._read({"_id": job_id}, _UNSEEN)
        return None if found is None else Job.model_validate({**found, "history": []})

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""
        found = await self._read({"_id": job_id}, {"traceparent": 1})
        return None if found is None else str(found["traceparent"])

    async def unpublished(self, older_than: timedelta, limit: int) -> list[bytes]:
        """Return up to `limit` events that have lain in an outbox for this long, oldest first."""
        before = datetime.now(UTC) - older_than
        query = {"outbox": {"$type": "string"}, "created_at": {"$lt": before}}
        cursor = self._jobs.find(query, {"outbox": 1}).sort("created_at", ASCENDING).limit(limit)
        return [document["outbox"].encode() for document in await cursor.to_list(limit)]

    async def is_up(self) -> bool:
        """Tell whether a primary answers."""
        await self._client.admin.command("ping")
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _read(self, query: dict[str, Any], projection: dict[str, int]) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] | None = await self._jobs.find_one(query, projection)
        except PyMongoError as error:
            raise BackEndError("MongoDB") from error
        return found
