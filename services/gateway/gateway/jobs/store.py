"""MongoDB: the `jobs` collection as the gateway uses it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from pymongo import ASCENDING
from pymongo.read_concern import ReadConcern

from chassis.batches import Batches
from chassis.mongodb import MongoDB, insert_new, translating
from contracts import api, events
from contracts.job import Job, Status, is_terminal
from contracts.metadata import terms_asked
from gateway.audio import Recording
from gateway.jobs import indexes
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.jobs.removals import Ending

_NOT_READ = {"upload_received": 0, "metadata_terms": 0}
_WITHOUT_HISTORY = {**_NOT_READ, "history": 0, "audio": 0}
_SUMMARY = {**_WITHOUT_HISTORY, "result_json": 0}
_RECORDING = {"token_id": 1, "sha256": 1, "metadata_json": 1}
_OLDEST = [("created_at", ASCENDING), ("_id", ASCENDING)]
_THERE: dict[str, Any] = {"purge_asked_at": None}
_ENDED = [status.value for status in Status if is_terminal(status)]


class JobStore:
    """The collection: inserts jobs, reads and lists them, and finds those that need something."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._jobs = mongodb.collection("jobs")
        self._inserts = Batches(self._insert_all)
        self._traceparents = Batches(self._find_traceparents)

    async def insert(self, job: Job) -> bool:
        """Insert a new job; it is on a majority's disks when this returns. False when there is one like it.

        That is one with this id, or with this number among a recording's retries.
        """
        return await self._inserts.answer(job)

    async def retry_numbers(self, recording_of: str) -> set[int]:
        """Return the numbers of the retries that are kept of a recording, those that are being purged too."""
        query = {"$and": [{"recording_of": recording_of}, indexes.RETRIES]}
        with translating():
            found = self._jobs.find(query, {"_id": 0, "retry_number": 1})
            return {document["retry_number"] for document in await found.to_list(None)}

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        return await self._find(job_id, _WITHOUT_HISTORY)

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job with its history."""
        return await self._find(job_id, _NOT_READ)

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when there is no such job on a majority's disks."""
        jobs = self._jobs.with_options(read_concern=ReadConcern("majority"))
        with translating():
            found = await jobs.find_one({"_id": job_id, **_THERE}, _RECORDING)
        if found is None:
            return None
        metadata = found.get("metadata_json")
        return Recording.of(
            found["token_id"], found["sha256"], None if metadata is None else events.from_json(metadata)
        )

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""
        return await self._traceparents.answer(job_id)

    async def page(
        self,
        job_filter: JobFilter,
        after: Cursor | None,
        limit: int,
        metadata: MetadataAsked = (),
        owner: str | None = None,
    ) -> list[Job]:
        """Return the newest `limit` jobs that match, have this metadata and come after the cursor, without results.

        With an owner, only this one's.
        """
        with translating():
            found = (
                self._jobs.find(_query(job_filter, metadata, after, owner), _SUMMARY).sort(indexes.NEWEST).limit(limit)
            )
            return [_job(document) for document in await found.to_list(limit)]

    async def ahead(self, job: Job) -> int:
        """Return how many jobs were created before this one and have not ended, up to `api.MOST_AHEAD`."""
        query = {"view.status": Status.PROCESSING.value, "created_at": {"$lt": job.created_at}}
        with translating():
            return int(await self._jobs.count_documents(query, limit=api.MOST_AHEAD))

    async def waiting(self, owners: Collection[str]) -> dict[str, int]:
        """Return how many jobs of each owner have not ended; an owner who is not in the answer has none."""
        match = {"owner": {"$in": list(owners), **indexes.OWNED["owner"]}, "view.status": Status.PROCESSING.value}
        with translating():
            counted = self._jobs.aggregate([{"$match": match}, {"$group": {"_id": "$owner", "count": {"$sum": 1}}}])
            return {document["_id"]: document["count"] for document in await counted.to_list(None)}

    async def ended_before(self, moment: datetime, limit: int) -> list[str]:
        """Return the ids of up to `limit` ended jobs that were created before `moment`, the oldest first."""
        query = {"view.status": {"$in": _ENDED}, "created_at": {"$lt": moment}, **_THERE}
        with translating():
            found = self._jobs.find(query, {"_id": 1}).sort(_OLDEST).limit(limit)
            return [document["_id"] for document in await found.to_list(limit)]

    async def ask_end(self, ending: Ending, job_ids: list[str], now: datetime) -> None:
        """Note that these jobs are to be cancelled or purged, which is to be told at once.

        A job that has ended cannot be cancelled. Nothing changes for a job for which this was asked before.
        """
        asked_at = f"{ending}_asked_at"
        query: dict[str, Any] = {"_id": {"$in": job_ids}, asked_at: None, **_THERE}
        if ending == Ending.CANCEL:
            query["view.status"] = Status.PROCESSING.value
        with translating():
            await self._jobs.update_many(query, {"$set": {asked_at: now, "publish_at": now, "redrives": 0}})

    async def purging(self) -> int:
        """Return how many jobs are to be purged and are still there."""
        with translating():
            # The index of what is to be told again: no other has these jobs alone.
            return int(await self._jobs.count_documents(indexes.WHICH[indexes.PURGES], hint=indexes.PURGES))

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""
        query = {"_id": {"$in": job_ids}, "view.status": Status.PROCESSING.value}
        with translating():
            return {document["_id"] for document in await self._jobs.find(query, {"_id": 1}).to_list(None)}

    async def _find(self, job_id: str, projection: dict[str, int]) -> Job | None:
        with translating():
            found = await self._jobs.find_one({"_id": job_id, **_THERE}, projection)
        return None if found is None else _job(found)

    async def _insert_all(self, jobs: list[Job]) -> list[bool]:
        return await insert_new(self._jobs, [job.model_dump(by_alias=True) for job in jobs])

    async def _find_traceparents(self, job_ids: list[str]) -> list[str | None]:
        with translating():
            documents = self._jobs.find({"_id": {"$in": job_ids}, **_THERE}, {"traceparent": 1})
            found = {document["_id"]: str(document["traceparent"]) for document in await documents.to_list(None)}
        return [found.get(job_id) for job_id in job_ids]


def _job(document: dict[str, Any]) -> Job:
    return Job.model_validate({"history": [], **document})


def _query(job_filter: JobFilter, metadata: MetadataAsked, after: Cursor | None, owner: str | None) -> dict[str, Any]:
    query: dict[str, Any] = {**job_filter.conditions(), **_THERE}
    if owner is not None:
        query |= indexes.of_owner(owner)
    else:
        # Listing every status merges one index scan per status, so it needs no index of its own.
        query.setdefault("view.status", {"$in": [status.value for status in Status]})
    if metadata:
        query |= indexes.WITH_METADATA
        query["$and"] = [{"metadata_terms": {"$in": terms_asked(key, text)}} for key, text in metadata]
    if after is not None:
        query["created_at"] = {**query.get("created_at", {}), "$lte": after.created_at}
        # Among jobs of the same moment, the id says which come after the cursor.
        query["$or"] = [{"created_at": {"$lt": after.created_at}}, {"_id": {"$lt": after.job_id}}]
    return query
