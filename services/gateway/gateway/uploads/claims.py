"""MongoDB: the `idempotency_keys` collection, which holds the claims of idempotency keys."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from pymongo import ReturnDocument

from chassis.mongodb import Index, Indexes, MongoDB, translating
from gateway.audio import Recording
from gateway.uploads.idempotency import Claim

KEY_SECONDS = 24 * 3600
"""How long an idempotency key is kept."""
LEASE_MS = 30_000
"""How long a key stays claimed by a request that does not renew its lease."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class ClaimStore:
    """The collection; leases run by the database's clock, which all replicas share."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._keys = mongodb.collection("idempotency_keys")
        self._indexes = Indexes(
            self._keys,
            Index("created_at", name="kept", expireAfterSeconds=KEY_SECONDS),
            Index("job_id", name="job"),
        )

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        """Claim a key that is new or whose lease is over; return the claim that holds now, whoever owns it."""
        free = {"$and": [{"$not": ["$settled"]}, {"$lt": [{"$ifNull": ["$lease_until", _LONG_AGO]}, "$$NOW"]}]}
        change = {
            "created_at": {"$ifNull": ["$created_at", "$$NOW"]},
            "job_id": {"$ifNull": ["$job_id", job_id]},
            "owner": {"$cond": [free, owner, "$owner"]},
            "lease_until": {"$cond": [free, _end_of_lease(), "$lease_until"]},
        }
        with translating():
            await self._indexes.ensure()
            found = await self._keys.find_one_and_update(
                {"_id": key}, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        settled = found.get("settled")
        recording = None if settled is None else Recording(**settled)
        return Claim(found["owner"], found["job_id"], recording)

    async def renew(self, key: str, owner: str) -> None:
        """Begin the lease anew, if the owner still holds the claim."""
        change = [{"$set": {"lease_until": _end_of_lease()}}]
        with translating():
            await self._keys.update_one({"_id": key, "owner": owner}, change)

    async def free(self, key: str, owner: str) -> None:
        """End the lease now, if the owner still holds the claim."""
        change = {"$set": {"owner": ""}, "$unset": {"lease_until": 1}}
        with translating():
            await self._keys.update_one({"_id": key, "owner": owner}, change)

    async def settle(self, key: str, recording: Recording) -> None:
        """Record what the key was used for: from now on, requests with it get the first answer again."""
        settled = vars(recording)
        with translating():
            await self._keys.update_one({"_id": key}, {"$set": {"settled": settled}, "$unset": {"lease_until": 1}})

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove the claims that stand for these jobs."""
        with translating():
            await self._keys.delete_many({"job_id": {"$in": list(job_ids)}})


def _end_of_lease() -> dict[str, Any]:
    return {"$add": ["$$NOW", LEASE_MS]}
