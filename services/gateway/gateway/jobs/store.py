"""MongoDB: the `jobs` collection as the gateway uses it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.read_concern import ReadConcern

from chassis.batches import Batches
from chassis.mongodb import MongoDB, insert_new, translating
from contracts.job import Job, Status, is_terminal
from gateway.audio import Recording
from gateway.jobs.listing import Cursor, JobFilter

_WITHOUT_HISTORY = {"history": 0, "outbox": 0, "audio": 0}
_SUMMARY = {**_WITHOUT_HISTORY, "result_json": 0}
_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]
_OLDEST = [("created_at", ASCENDING), ("_id", ASCENDING)]
_ENDED = [status.value for status in Status if is_terminal(status)]


class JobStore:
    """The collection: inserts jobs, reads and lists them, and finds those that need something."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._jobs = mongodb.collection("jobs")
        self._inserts = Batches(self._insert_all)
        self._traceparents = Batches(self._find_traceparents)

    async def prepare(self) -> None:
        """Create the indexes: one for the relay, one for lists of every kind, one for lists of a token."""
        with translating():
            await self._jobs.create_index(
                [("created_at", ASCENDING)], name="outbox", partialFilterExpression={"outbox": {"$type": "string"}}
            )
            await self._jobs.create_index([("view.status", ASCENDING), *_NEWEST], name="status")
            await self._jobs.create_index([("token_id", ASCENDING), *_NEWEST], name="token")

    async def insert(self, job: Job) -> bool:
        """Insert a new job; it is on a majority's disks when this returns. False when there is one with this id."""
        return await self._inserts.answer(job)

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        return await self._find(job_id, _WITHOUT_HISTORY)

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job with its history."""
        return await self._find(job_id, {"outbox": 0})

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when there is no such job on a majority's disks."""
        jobs = self._jobs.with_options(read_concern=ReadConcern("majority"))
        with translating():
            found = await jobs.find_one({"_id": job_id}, {"token_id": 1, "sha256": 1})
        return None if found is None else Recording(found["token_id"], found["sha256"])

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""
        return await self._traceparents.answer(job_id)

    async def page(self, job_filter: JobFilter, after: Cursor | None, limit: int) -> list[Job]:
        """Return the newest `limit` jobs that match the filter and come after the cursor, without their results."""
        with translating():
            found = self._jobs.find(_query(job_filter, after), _SUMMARY).sort(_NEWEST).limit(limit)
            return [_job(document) for document in await found.to_list(limit)]

    async def ahead(self, job: Job) -> int:
        """Return how many jobs were created before this one and have not ended."""
        query = {"view.status": Status.PROCESSING.value, "created_at": {"$lt": job.created_at}}
        with translating():
            return int(await self._jobs.count_documents(query))

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        """Return up to `limit` ended jobs that were created before `moment`, oldest first; none of `besides`."""
        query = {"view.status": {"$in": _ENDED}, "created_at": {"$lt": moment}, "_id": {"$nin": besides}}
        with translating():
            found = self._jobs.find(query, _SUMMARY).sort(_OLDEST).limit(limit)
            return [_job(document) for document in await found.to_list(limit)]

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""
        query = {"_id": {"$in": job_ids}, "view.status": Status.PROCESSING.value}
        with translating():
            return {document["_id"] for document in await self._jobs.find(query, {"_id": 1}).to_list(None)}

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        """Return up to `limit` events that have been in an outbox for so long, each with its job's id, oldest first.

        The jobs in `besides` are left out.
        """
        before = datetime.now(UTC) - older_than
        query = {"outbox": {"$type": "string"}, "created_at": {"$lt": before}, "_id": {"$nin": besides}}
        with translating():
            found = self._jobs.find(query, {"outbox": 1}).sort("created_at", ASCENDING).limit(limit)
            return [(document["_id"], document["outbox"].encode()) for document in await found.to_list(limit)]

    async def _find(self, job_id: str, projection: dict[str, int]) -> Job | None:
        with translating():
            found = await self._jobs.find_one({"_id": job_id}, projection)
        return None if found is None else _job(found)

    async def _insert_all(self, jobs: list[Job]) -> list[bool]:
        return await insert_new(self._jobs, [job.model_dump(by_alias=True) for job in jobs])

    async def _find_traceparents(self, job_ids: list[str]) -> list[str | None]:
        with translating():
            documents = self._jobs.find({"_id": {"$in": job_ids}}, {"traceparent": 1})
            found = {document["_id"]: str(document["traceparent"]) for document in await documents.to_list(None)}
        return [found.get(job_id) for job_id in job_ids]


def _job(document: dict[str, Any]) -> Job:
    return Job.model_validate({"history": [], **document})


def _query(job_filter: JobFilter, after: Cursor | None) -> dict[str, Any]:
    # Listing every status merges one index scan per status, so it needs no index of its own.
    query: dict[str, Any] = {"view.status": {"$in": [status.value for status in Status]}, **job_filter.conditions()}
    if after is not None:
        query["created_at"] = {**query.get("created_at", {}), "$lte": after.created_at}
        # Among jobs of the same moment, the id says which come after the cursor.
        query["$or"] = [{"created_at": {"$lt": after.created_at}}, {"_id": {"$lt": after.job_id}}]
    return query
