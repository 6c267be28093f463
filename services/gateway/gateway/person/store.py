"""MongoDB: the jobs of one owner, and the `erasures` collection."""

from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING

from chassis.mongodb import Index, Indexes, MongoDB, translating
from contracts.job import Job
from contracts.scores import Scores
from gateway.jobs import indexes
from gateway.jobs.listing import Cursor
from gateway.person.documents import Scored
from gateway.person.erasing import Erasure

_NOT_READ = {"upload_received": 0, "metadata_terms": 0}
_THERE: dict[str, Any] = {"purge_asked_at": None}
_SCORED = {"token_id": 1, "created_at": 1, "scores": 1}


class OwnedJobStore:
    """The `jobs` collection, as far as it is somebody's."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._jobs = mongodb.collection("jobs")

    async def page(self, owner: str, after: Cursor | None, limit: int) -> list[Job]:
        """Return the newest `limit` jobs after the cursor, each with its history and its result."""
        query: dict[str, Any] = {**indexes.of_owner(owner), **_THERE}
        if after is not None:
            query["created_at"] = {"$lte": after.created_at}
            query["$or"] = [{"created_at": {"$lt": after.created_at}}, {"_id": {"$lt": after.job_id}}]
        with translating():
            found = self._jobs.find(query, _NOT_READ, hint="owner").sort(indexes.NEWEST).limit(limit)
            return [Job.model_validate(document) for document in await found.to_list(limit)]

    async def scored(self, owner: str, after_token: str, limit: int) -> list[Scored]:
        """Return the first `limit` scores of tokens after this one: by token id, the newest first."""
        query = {
            **indexes.of_owner(owner),
            "scores": indexes.SCORED["scores"],
            "token_id": {"$gt": after_token},
            **_THERE,
        }
        order = [("token_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)]
        with translating():
            found = self._jobs.find(query, _SCORED, hint="scores").sort(order).limit(limit)
            return [_scored(document) for document in await found.to_list(limit)]

    async def begun_by(self, owner: str, moment: datetime, limit: int) -> list[str]:
        """Return the ids of up to `limit` jobs whose upload, or retry, had begun by then."""
        # A job that an earlier version made says only when it was there.
        begun = [{"began_at": {"$lte": moment}}, {"began_at": None, "created_at": {"$lte": moment}}]
        with translating():
            found = self._jobs.find(
                {**indexes.of_owner(owner), "$or": begun, **_THERE}, {"_id": 1}, hint="owner"
            ).limit(limit)
            return [document["_id"] for document in await found.to_list(limit)]


class ErasureStore:
    """The collection: one document for each owner who asked."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._erasures = mongodb.collection("erasures")
        self._indexes = Indexes(self._erasures, Index("look_at", name="due"))

    async def ask(self, owner: str, now: datetime) -> None:
        """Note that this was asked, on a majority's disks."""
        with translating():
            await self._indexes.ensure()
            change = {"$max": {"asked_at": now}, "$set": {"look_at": now}}
            await self._erasures.update_one({"_id": owner}, change, upsert=True)

    async def due(self, now: datetime, limit: int) -> list[Erasure]:
        """Return up to `limit` erasures that are to be looked at, the longest due first."""
        with translating():
            found = self._erasures.find({"look_at": {"$lte": now}}).sort("look_at", ASCENDING).limit(limit)
            return [Erasure(document["_id"], document["asked_at"]) for document in await found.to_list(limit)]

    async def look_again(self, erasure: Erasure, at: datetime) -> None:
        """Have it looked at then, unless it was asked for again meanwhile."""
        with translating():
            await self._erasures.update_one(_as_seen(erasure), {"$set": {"look_at": at}})

    async def finish(self, erasure: Erasure) -> None:
        """Forget it, unless it was asked for again meanwhile."""
        with translating():
            await self._erasures.delete_one(_as_seen(erasure))


def _as_seen(erasure: Erasure) -> dict[str, Any]:
    return {"_id": erasure.owner, "asked_at": erasure.asked_at}


def _scored(document: dict[str, Any]) -> Scored:
    scores = Scores.model_validate(document["scores"])
    return Scored(document["_id"], document["token_id"], document["created_at"], scores)
