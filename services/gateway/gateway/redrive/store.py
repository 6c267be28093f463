"""MongoDB: the gateway's fields of the `jobs` collection that say what is told again, and when."""

from datetime import datetime
from typing import Any

from pymongo import ASCENDING, UpdateOne

from chassis.mongodb import MongoDB, translating
from contracts.events import UploadReceived
from contracts.job import recording_in
from gateway.jobs import indexes
from gateway.jobs.removals import Ending
from gateway.redrive.documents import Removal
from gateway.redrive.timing import StandingJob, Wait

_NO_END_ASKED: dict[str, Any] = {"cancel_asked_at": None, "purge_asked_at": None}
_INDEX_OF = {Ending.CANCEL: indexes.CANCELS, Ending.PURGE: indexes.PURGES}
_OVERRULED: dict[Ending, dict[str, Any]] = {Ending.CANCEL: {"purge_asked_at": None}, Ending.PURGE: {}}
"""A job that is to be purged need not be cancelled as well."""
_STANDING: dict[str, Any] = {
    **{"view.updated_at": 1, "view.stage": 1, "view.progress": 1},
    **{"publish_at": 1, "redrives": 1, "redriven_at": 1, "analysis_deadline": 1},
}
_REMOVAL = {"token_id": 1, "metadata_json": 1, "owner": 1, "traceparent": 1, "publish_at": 1, "redrives": 1}


class RedriveStore:
    """The collection as the redrive sees it."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._jobs = mongodb.collection("jobs")

    async def prepare(self) -> None:
        """Create the indexes of the whole collection."""
        await indexes.create(self._jobs)

    async def due(self, now: datetime, *, received: bool, limit: int) -> list[StandingJob]:
        """Return up to `limit` unfinished jobs whose time has come, the longest due first; see `Redrives`."""
        history = UploadReceived.TYPE if received else {"$ne": UploadReceived.TYPE}
        query = {**indexes.WHICH[indexes.DUE], "publish_at": {"$lte": now}, **_NO_END_ASKED, "history.type": history}
        with translating():
            found = self._jobs.find(query, _STANDING, hint=indexes.DUE).sort("publish_at", ASCENDING).limit(limit)
            return [_standing(document, received=received) for document in await found.to_list(limit)]

    async def postpone(self, waits: list[tuple[StandingJob, Wait]]) -> None:
        """Have each of these jobs looked at later, unless its time has been changed meanwhile."""
        updates = [
            UpdateOne(
                {"_id": job.job_id, "publish_at": job.publish_at, **_NO_END_ASKED},
                {"$set": {"publish_at": wait.until, "redrives": wait.redrives}},
            )
            for job, wait in waits
        ]
        with translating():
            await self._jobs.bulk_write(updates, ordered=False)

    async def claim(self, job: StandingJob, until: datetime) -> str | None:
        """Claim a job and return its upload.received as text; None when another gateway was faster."""
        query = {"_id": job.job_id, **indexes.WHICH[indexes.DUE], "publish_at": job.publish_at, **_NO_END_ASKED}
        with translating():
            found = await self._jobs.find_one_and_update(
                query, {"$set": {"publish_at": until}}, projection={"upload_received": 1}
            )
        return None if found is None else found.get("upload_received") or ""

    async def removals(self, ending: Ending, now: datetime, limit: int) -> list[Removal]:
        """Return up to `limit` cancels or purges whose time has come."""
        query = {**indexes.WHICH[_INDEX_OF[ending]], "publish_at": {"$lte": now}, **_OVERRULED[ending]}
        with translating():
            found = self._jobs.find(query, _REMOVAL, hint=_INDEX_OF[ending]).sort("publish_at", ASCENDING).limit(limit)
            return [
                Removal(
                    ending=ending,
                    job_id=document["_id"],
                    recording=recording_in(document),
                    traceparent=document["traceparent"],
                    publish_at=document["publish_at"],
                    redrives=document.get("redrives", 0),
                )
                for document in await found.to_list(limit)
            ]

    async def claim_removal(self, removal: Removal, until: datetime) -> bool:
        """Claim a cancel or a purge; False when another gateway was faster, or it is done."""
        query = {"_id": removal.job_id, **indexes.WHICH[_INDEX_OF[removal.ending]], "publish_at": removal.publish_at}
        with translating():
            claimed = await self._jobs.update_one(query, {"$set": {"publish_at": until}})
        return bool(claimed.matched_count)

    async def told(self, job_id: str, claimed: datetime, redrives: int, at: datetime, then: datetime) -> None:
        """Note that a claimed job was told at `at`, for the `redrives`-th time in a row; look again `then`."""
        await self._set(job_id, claimed, publish_at=then, redrives=redrives, redriven_at=at)

    async def hurry(self, job_id: str, claimed: datetime, then: datetime) -> None:
        """Note that a claimed job could not be told; look again `then`."""
        await self._set(job_id, claimed, publish_at=then)

    async def purges_told_in_vain(self, most: int) -> int:
        """Return how many purges have been told more than once and are not done; counted up to `most`."""
        query = {**indexes.WHICH[indexes.PURGES], "redrives": {"$gt": 1}}
        with translating():
            found: int = await self._jobs.count_documents(query, hint=indexes.PURGES, limit=most)
        return found

    async def longest_due(self) -> datetime | None:
        """Return the earliest time at which any unfinished job is to be looked at; None without any."""
        query = {**indexes.WHICH[indexes.DUE], "publish_at": {"$type": "date"}}
        with translating():
            found = await self._jobs.find_one(
                query, {"publish_at": 1}, sort=[("publish_at", ASCENDING)], hint=indexes.DUE
            )
        return None if found is None else found["publish_at"]

    async def _set(self, job_id: str, claimed: datetime, **fields: Any) -> None:
        with translating():
            await self._jobs.update_one({"_id": job_id, "publish_at": claimed}, {"$set": fields})


def _standing(document: dict[str, Any], *, received: bool) -> StandingJob:
    view = document["view"]
    return StandingJob(
        job_id=document["_id"],
        publish_at=document["publish_at"],
        updated_at=view["updated_at"],
        stage=view["stage"],
        progress=view["progress"],
        # A document that an earlier version made may lack these.
        redrives=document.get("redrives", 0),
        redriven_at=document.get("redriven_at"),
        analysis_deadline=document.get("analysis_deadline"),
        is_received=received,
    )
