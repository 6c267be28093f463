"""MongoDB: inserts jobs, reads them, and finds those whose event is still to be published."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, ReadPreference, WriteConcern
from pymongo.errors import PyMongoError

from contracts.job import Job, Status
from gateway.batches import Batches
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
        self._inserts = Batches(self._insert_all)
        self._traceparents = Batches(self._find_traceparents)

    async def prepare(self) -> None:
        """Create the index that the relay's question needs."""
        await self._jobs.create_index(
            [("created_at", ASCENDING)], name="outbox", partialFilterExpression={"outbox": {"$type": "string"}}
        )

    async def insert(self, job: Job) -> None:
        """Keep a new job; it is on a majority's disks when this returns."""
        try:
            await self._inserts.answer(job)
        except PyMongoError as error:
            raise BackEndError("MongoDB") from error

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        try:
            found = await self._jobs.find_one({"_id": job_id}, _UNSEEN)
        except PyMongoError as error:
            raise BackEndError("MongoDB") from error
        return None if found is None else Job.model_validate({**found, "history": []})

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""
        try:
            return await self._traceparents.answer(job_id)
        except PyMongoError as error:
            raise BackEndError("MongoDB") from error

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[bytes]:
        """Return up to `limit` events that have lain in an outbox for this long, oldest first; none of `besides`."""
        before = datetime.now(UTC) - older_than
        query = {"outbox": {"$type": "string"}, "created_at": {"$lt": before}, "_id": {"$nin": besides}}
        cursor = self._jobs.find(query, {"outbox": 1}).sort("created_at", ASCENDING).limit(limit)
        return [document["outbox"].encode() for document in await cursor.to_list(limit)]

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""
        query = {"_id": {"$in": job_ids}, "view.status": Status.PROCESSING.value}
        cursor = self._jobs.find(query, {"_id": 1})
        return {document["_id"] for document in await cursor.to_list(None)}

    async def is_up(self) -> bool:
        """Tell whether a primary answers."""
        await self._client.admin.command("ping")
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _insert_all(self, jobs: list[Job]) -> list[None]:
        await self._jobs.insert_many([job.model_dump(by_alias=True) for job in jobs], ordered=False)
        return [None] * len(jobs)

    async def _find_traceparents(self, job_ids: list[str]) -> list[str | None]:
        cursor = self._jobs.find({"_id": {"$in": job_ids}}, {"traceparent": 1})
        found = {document["_id"]: str(document["traceparent"]) for document in await cursor.to_list(None)}
        return [found.get(job_id) for job_id in job_ids]
