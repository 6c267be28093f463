"""Audio as the gateway's rooms hand it to one another, and what they ask of the store that keeps it."""

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.audio import UNKNOWN_TYPE
from contracts.events import JsonObject


@dataclass(frozen=True)
class Recording:
    """What a job is made from: the same token, bytes and metadata are the same recording."""

    token_id: str
    sha256: str | None
    metadata_sha256: str | None = None
    """Users may have named people there, and claims of keys outlive a purged job: the digest is enough to compare."""

    @classmethod
    def of(cls, token_id: str, sha256: str | None, metadata: JsonObject | None) -> "Recording":
        """Return the recording with this metadata; the order of its keys is of no matter."""
        if metadata is None:
            return cls(token_id, sha256)
        text = json.dumps(metadata, sort_keys=True)
        return cls(token_id, sha256, hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True)
class StoredAudio:
    """An object in the store that holds a job's recording or a token's reference audio."""

    key: str
    size_bytes: int
    content_type: str
    etag: str


class AudioGoneError(Exception):
    """Audio was removed after it had been found."""


class ArrivingFile(Protocol):
    """A file that is still being sent; its name and metadata are final once its chunks were read."""

    @property
    def filename(self) -> str | None:
        """What the client calls the file."""

    @property
    def metadata(self) -> JsonObject | None:
        """What the job is to be known by."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the file's bytes."""


class ObjectStore(Protocol):
    """Keeps objects by key; every method raises BackEndError when it cannot do what is asked."""

    async def write(self, key: str, chunks: AsyncIterator[bytes], content_type: str = UNKNOWN_TYPE) -> None:
        """Store all of the chunks, or nothing when they fail on the way."""

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        """Copy kept audio to another key; AudioGoneError when it is no longer there."""

    def older_than(self, prefix: str, moment: datetime) -> AsyncIterator[list[str]]:
        """Yield the keys under `prefix` that were written before `moment`, a page at a time."""

    async def remove_all(self, keys: list[str]) -> None:
        """Delete up to 1,000 objects at once, or all that the store lets go of before raising BackEndError."""

    async def remove_under(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads under `prefix` that were begun before `moment`; return how many."""
