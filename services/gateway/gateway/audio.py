"""Audio as the gateway's rooms hand it to one another, and what they ask of the store that keeps it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.audio import UNKNOWN_TYPE


@dataclass(frozen=True)
class Recording:
    """What a job is made from: the same token and the same bytes are the same recording."""

    token_id: str
    sha256: str | None


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
    """A file that is still being sent; its name is final once its chunks were read."""

    filename: str | None

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
        """Delete up to 1,000 objects at once."""

    async def remove_under(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads under `prefix` that were begun before `moment`; return how many."""
