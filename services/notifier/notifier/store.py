"""MongoDB: reads job documents and changes only named fields of them; never replaces a document, never upserts."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from pymongo import ASCENDING, UpdateOne

from chassis.batches import Batches
from chassis.mongodb import MongoDB, translating
from contracts.job import Change, Job, Stage, Status, is_terminal, recording_in
from notifier.jobs import StandingJob

_NOT_READ = {"upload_received": 0, "metadata_terms": 0}
"""The gateway's copy of upload.received, which goes when the job ends, since nothing is told again then; and the terms,
which are there to be searched.
"""
STANDING_JOBS = 1000
"""The most jobs that one search for standing jobs returns."""


class JobStore:
    """The `jobs` collection as the notifier uses it."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._jobs = mongodb.collection("jobs")
        self._finds = Batches(self._find_all)
        self._updates = Batches(self._update_all)

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history; None when there is none."""
        found = await self._finds.answer(job_id)
        return None if found is None else Job.model_validate(found)

    async def revisions(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the revision of each of these jobs; one that is not there is left out."""
        with translating():
            cursor = self._jobs.find({"_id": {"$in": list(job_ids)}}, {"revision": 1})
            return {found["_id"]: found["revision"] for found in await cursor.to_list(None)}

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job has changed since it was read, in its revision or its history."""
        return await self._updates.answer((job, change))

    async def remove_if_removed(self, job_id: str, removed: Sequence[str]) -> None:
        """Delete the job's document if all events of these types say what of it was removed."""
        with translating():
            await self._jobs.delete_one({"_id": job_id, "removed": {"$all": list(removed)}})

    async def standing_since(self, moment: datetime, redriven_since: datetime) -> Sequence[StandingJob]:
        """Return the oldest of the unfinished jobs that have not changed since `moment`.

        Of those that are not held, only those that the gateway has told again since `redriven_since`, in vain, or that
        it never tells again.
        """
        # created_at is never later than updated_at, so this query can use the index on status and created_at that the
        # gateway's lists have. An index of its own would have to be written with every change of every job.
        older = {"created_at": {"$lt": moment}, "view.updated_at": {"$lt": moment}}
        told_in_vain = {
            "$or": [
                {"view.stage": Stage.HELD.value},
                {"redriven_at": {"$gt": redriven_since}},
                {"publish_at": None},
            ]
        }
        fields = {"token_id": 1, "metadata_json": 1, "owner": 1, "traceparent": 1, "revision": 1, "view.stage": 1}
        query = {"view.status": Status.PROCESSING.value, **older, **told_in_vain}
        with translating():
            cursor = self._jobs.find(query, fields).sort("created_at", ASCENDING).limit(STANDING_JOBS)
            standing = await cursor.to_list(STANDING_JOBS)
        return [
            StandingJob(
                job_id=found["_id"],
                recording=recording_in(found),
                traceparent=found["traceparent"],
                revision=found["revision"],
                is_held=found["view"]["stage"] == Stage.HELD,
            )
            for found in standing
        ]

    async def _find_all(self, job_ids: list[str]) -> list[dict[str, Any] | None]:
        with translating():
            cursor = self._jobs.find({"_id": {"$in": job_ids}}, _NOT_READ)
            found = {document["_id"]: document for document in await cursor.to_list(None)}
        return [found.get(job_id) for job_id in job_ids]

    async def _update_all(self, changes: list[tuple[Job, Change]]) -> list[bool]:
        updates = [UpdateOne(*_conditional_update(job, change)) for job, change in changes]
        with translating():
            result = await self._jobs.bulk_write(updates, ordered=False)
        if result.matched_count == len(updates):
            return [True] * len(updates)
        # Some updates did not match. MongoDB does not say which, but the history does.
        jobs = await self._find_all([job.job_id for job, _ in changes])
        return [
            now is not None and _stands(now["history"], change) for now, (_, change) in zip(jobs, changes, strict=True)
        ]


def _stands(history: list[dict[str, Any]], change: Change) -> bool:
    """Tell whether exactly this change was made.

    Another replica may have applied the same event at another revision, or another copy of the event. A copy has the
    same id but a time of its own, which MongoDB keeps to the millisecond.
    """
    entry = change.entry
    time = entry.time.replace(microsecond=entry.time.microsecond // 1000 * 1000)
    made = (entry.event_id, entry.revision, time)
    return any((line["event_id"], line["revision"], line["time"]) == made for line in history)


def _conditional_update(job: Job, change: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    # Every applied event adds a line of history: if there are still as many lines, nothing has changed meanwhile.
    unchanged = {"_id": job.job_id, "revision": job.revision, "history": {"$size": len(job.history)}}
    update: dict[str, Any] = {
        "$set": {**{name: _plain(value) for name, value in change.fields.items()}, "revision": change.revision},
        "$push": {"history": change.entry.model_dump()},
    }
    if change.view is not None and is_terminal(change.view.status):
        update["$unset"] = {"upload_received": ""}
    return unchanged, update


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value
