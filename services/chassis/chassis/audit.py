"""The record of what operators read or change of other people's: the `audit` collection, kept for a year."""

from datetime import UTC, datetime

from chassis.identity.caller import Caller
from chassis.mongodb import Index, Indexes, MongoDB, translating
from contracts.job import Job

KEPT_SECONDS = 365 * 24 * 3600


class Audit:
    """The collection; entries are added, never changed."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._entries = mongodb.collection("audit")
        self._indexes = Indexes(self._entries, Index("time", name="kept", expireAfterSeconds=KEPT_SECONDS))

    async def note(self, caller: Caller, done: str, job: Job | None = None) -> None:
        """Note that the caller did this, with this job. What cannot be noted is not done: raises BackEndError."""
        entry = {"time": datetime.now(UTC), "caller": caller.owner, "done": done}
        if job is not None:
            entry |= {"job_id": job.job_id, "owner": job.owner}
        with translating():
            await self._indexes.ensure()
            await self._entries.insert_one(entry)
