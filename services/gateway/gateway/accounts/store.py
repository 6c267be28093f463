"""MongoDB: the `sessions` collection as the gateway changes it."""

from datetime import datetime, timedelta

from pymongo import DESCENDING, ReturnDocument

from chassis.mongodb import Index, Indexes, MongoDB, translating
from contracts.accounts import SESSIONS, Session

MOST_SESSIONS = 100
"""How many sessions a person has at most; one more ends the oldest."""


class SessionStore:
    """The collection; MongoDB removes what is over."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._sessions = mongodb.collection(SESSIONS)
        self._indexes = Indexes(
            self._sessions,
            Index("expires_at", name="over", expireAfterSeconds=60),
            Index("owner", name="owner"),
        )

    async def insert(self, session: Session) -> None:
        """Keep a new session, and end the oldest ones of its owner that are too many."""
        with translating():
            await self._indexes.ensure()
            await self._sessions.insert_one(session.model_dump(by_alias=True))
            newest_first = self._sessions.find({"owner": session.owner}, {"_id": 1}).sort("created_at", DESCENDING)
            too_many = [document["_id"] for document in await newest_first.skip(MOST_SESSIONS).to_list(None)]
            if too_many:
                await self._sessions.delete_many({"_id": {"$in": too_many}})

    async def extend(self, session_id: str, until: datetime, longest: timedelta) -> Session | None:
        """Let it last until then, or `longest` from its beginning; None when it was ended."""
        last = {"$add": ["$created_at", longest // timedelta(milliseconds=1)]}
        with translating():
            found = await self._sessions.find_one_and_update(
                {"_id": session_id},
                [{"$set": {"expires_at": {"$min": [until, last]}}}],
                return_document=ReturnDocument.AFTER,
            )
        return None if found is None else Session.model_validate(found)

    async def end_all(self, owner: str, until: datetime) -> None:
        """End the person's sessions that began by then."""
        with translating():
            await self._sessions.delete_many({"owner": owner, "created_at": {"$lte": until}})

    async def remove(self, session_id: str) -> bool:
        """End it; False when it had ended."""
        with translating():
            return bool((await self._sessions.delete_one({"_id": session_id})).deleted_count)
