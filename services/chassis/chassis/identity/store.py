"""MongoDB: what stands of sessions and API keys."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from chassis.batches import Batches
from chassis.mongodb import MongoDB, translating
from contracts.accounts import API_KEYS, SESSIONS, ApiKey, Session


class Credentials:
    """Reads both collections; of a key it also notes the last day on which it was used."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._sessions = mongodb.collection(SESSIONS)
        self._keys = mongodb.collection(API_KEYS)
        self._session_finds = Batches(self._find_sessions)
        self._key_finds = Batches(self._find_keys)

    async def session(self, session_id: str) -> Session | None:
        """Return the session; None when it was ended, or is over for long."""
        return await self._session_finds.answer(session_id)

    async def key(self, key_sha256: str) -> ApiKey | None:
        """Return the key, revoked or not; None when there is none."""
        return await self._key_finds.answer(key_sha256)

    async def note_use(self, key: ApiKey) -> None:
        """Note that the key was used today."""
        today = datetime.now(UTC).date().isoformat()
        if key.last_used != today:
            with translating():
                await self._keys.update_one({"_id": key.key_sha256}, {"$set": {"last_used": today}})

    async def standing_sessions(self, session_ids: Collection[str]) -> set[str]:
        """Return those of the sessions that have not been ended."""
        with translating():
            found = self._sessions.find({"_id": {"$in": list(session_ids)}}, {"_id": 1})
            return {document["_id"] for document in await found.to_list(None)}

    async def standing_keys(self, keys_sha256: Collection[str]) -> set[str]:
        """Return those of the keys that have not been revoked."""
        with translating():
            found = self._keys.find({"_id": {"$in": list(keys_sha256)}, "revoked_at": None}, {"_id": 1})
            return {document["_id"] for document in await found.to_list(None)}

    async def _find_sessions(self, ids: list[str]) -> list[Session | None]:
        return [None if one is None else Session.model_validate(one) for one in await _found(self._sessions, ids)]

    async def _find_keys(self, ids: list[str]) -> list[ApiKey | None]:
        return [None if one is None else ApiKey.model_validate(one) for one in await _found(self._keys, ids)]


async def _found(collection: Any, ids: list[str]) -> list[dict[str, Any] | None]:
    with translating():
        documents = await collection.find({"_id": {"$in": ids}}).to_list(None)
    found = {document["_id"]: document for document in documents}
    return [found.get(one) for one in ids]
