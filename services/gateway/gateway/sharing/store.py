"""MongoDB: the `share_links` collection."""

from collections.abc import Collection
from datetime import datetime

from pymongo import ASCENDING

from chassis.mongodb import Index, Indexes, MongoDB, translating
from gateway.sharing.links import Link


class LinkStore:
    """The collection; MongoDB removes what has expired."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._links = mongodb.collection("share_links")
        self._indexes = Indexes(
            self._links,
            Index("expires_at", name="expired", expireAfterSeconds=0),
            Index([("job_id", ASCENDING), ("created_at", ASCENDING)], name="job"),
        )

    async def insert(self, link: Link) -> None:
        """Keep a new link."""
        with translating():
            await self._indexes.ensure()
            await self._links.insert_one(link.model_dump(by_alias=True))

    async def find(self, secret_sha256: str, now: datetime) -> Link | None:
        """Return the link with this secret; None when there is none, or it has expired."""
        with translating():
            found = await self._links.find_one({"_id": secret_sha256, "expires_at": {"$gt": now}})
        return None if found is None else Link.model_validate(found)

    async def of_job(self, job_id: str, now: datetime) -> list[Link]:
        """Return a job's links that have not expired, the oldest first."""
        with translating():
            found = self._links.find({"job_id": job_id, "expires_at": {"$gt": now}}).sort("created_at", ASCENDING)
            return [Link.model_validate(document) for document in await found.to_list(None)]

    async def remove(self, job_id: str, link_id: str) -> bool:
        """Remove one; False when the job has no such link."""
        with translating():
            return bool((await self._links.delete_one({"job_id": job_id, "link_id": link_id})).deleted_count)

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all links of these jobs."""
        with translating():
            await self._links.delete_many({"job_id": {"$in": list(job_ids)}})
