"""MongoDB: the `api_keys` collection, as operators change it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from pymongo import WriteConcern

from contracts.accounts import API_KEYS, ApiKey
from sorictl.mongodb import client_of


class KeyStore:
    """The collection, for one command."""

    def __init__(self, collection: Any) -> None:
        self._keys = collection

    def insert(self, key: ApiKey) -> None:
        """Keep a new key, and what finds it by its id."""
        self._keys.create_index("key_id", name="key_id", unique=True)
        self._keys.insert_one(key.model_dump(by_alias=True))

    def all(self) -> list[ApiKey]:
        """Return every key, the oldest first."""
        return [ApiKey.model_validate(found) for found in self._keys.find().sort("created_at")]

    def find(self, key_id: str) -> ApiKey | None:
        """Return the key with this id."""
        found = self._keys.find_one({"key_id": key_id})
        return None if found is None else ApiKey.model_validate(found)

    def revoke(self, key_id: str) -> None:
        """Let the key count no more from now on; one that was revoked before keeps its time."""
        self._keys.update_one({"key_id": key_id, "revoked_at": None}, {"$set": {"revoked_at": datetime.now(UTC)}})


@contextmanager
def connected(url: str) -> Iterator[KeyStore]:
    """Yield the keys of the database at this address; DatabaseError says in a sentence what is wrong with it."""
    with client_of(url) as client:
        yield KeyStore(
            client.get_default_database("sori").get_collection(
                API_KEYS,
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                write_concern=WriteConcern("majority", j=True),
            )
        )
