"""MongoDB: the client, how safely it writes, how long it waits, and what its errors mean."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import IndexModel, ReadPreference, WriteConcern, timeout
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from chassis.errors import AwayError, BackEndError

ANSWER_MS = 5000
"""How many milliseconds MongoDB may take before a request is refused or a message is tried again."""
PRIMARY_MS = 1000
"""How many milliseconds a request waits for a primary. When none is found by then, MongoDB is away."""
ASKING_SECONDS = 2.0
"""Limits a health check: each one occupies a thread of the driver until it ends."""
MESSAGE_LIMITS = {
    "serverSelectionTimeoutMS": ANSWER_MS,
    "timeoutMS": ANSWER_MS,
    "connectTimeoutMS": ANSWER_MS,
}
"""The time limits of a service that handles messages: long enough to wait for the election of a primary."""
REQUEST_LIMITS = {
    # No timeoutMS: it would also become the limit for finding a primary.
    "serverSelectionTimeoutMS": PRIMARY_MS,
    "connectTimeoutMS": PRIMARY_MS,
    "socketTimeoutMS": ANSWER_MS,
}
"""The time limits of a service that answers requests, while its callers wait."""
_DUPLICATE_KEY = 11000
Index = IndexModel
"""One index of a collection: its keys, its name and its options."""


class MongoDB:
    """One client for the process; it connects by itself."""

    def __init__(self, url: str, limits: Mapping[str, Any]) -> None:
        self.client: Any = AsyncIOMotorClient(url, **limits)

    def collection(self, name: str) -> Any:
        """Return a collection. Writes are on the disks of a majority when they return; reads come from the primary."""
        return self.client.get_default_database("sori").get_collection(
            name,
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )

    async def is_up(self) -> bool:
        """Return True when a primary answers; raises when none does."""
        with timeout(ASKING_SECONDS):
            await self.client.admin.command("ping")
        return True

    def close(self) -> None:
        """Close the connections."""
        self.client.close()


class Indexes:
    """The indexes of a collection, created before its first use; what fails is tried again with the next."""

    def __init__(self, collection: Any, *indexes: Index) -> None:
        self._collection = collection
        self._indexes = indexes
        self._are_there = False

    async def ensure(self) -> None:
        """Create the indexes that are not there yet; once they are, this asks nothing. Raises the driver's errors."""
        if not self._are_there:
            await self._collection.create_indexes(list(self._indexes))
            self._are_there = True


@contextmanager
def translating() -> Iterator[None]:
    """Turn the driver's errors into AwayError for an outage, and BackEndError for a faulty operation."""
    try:
        yield
    except PyMongoError as error:
        is_outage = isinstance(error, ConnectionFailure) or error.timeout
        raise (AwayError if is_outage else BackEndError)("MongoDB", type(error).__name__) from error


async def insert_new(collection: Any, documents: list[dict[str, Any]]) -> list[bool]:
    """Insert the documents whose `_id` is not there yet; return for each whether it was inserted."""
    with translating():
        try:
            await collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            # A duplicate does not keep the other documents of its batch from being inserted.
            details = error.details or {}
            failed = {failure["index"]: failure["code"] for failure in details["writeErrors"]}
            if details["writeConcernErrors"] or set(failed.values()) != {_DUPLICATE_KEY}:
                raise
            return [index not in failed for index in range(len(documents))]
    return [True] * len(documents)
