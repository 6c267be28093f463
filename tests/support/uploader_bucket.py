"""The uploader's bucket in memory, for unit tests; it keeps the real one's promises."""

import hashlib
import io
from collections.abc import Callable
from typing import IO

from chassis.errors import ObjectMissingError
from uploader.uploads import Fetched, KeptRecording, StoredRecording


class Bucket:
    """The bucket; `descriptions` is what was kept with an object, `removed` which prefixes were emptied.

    `large` says of every recording that it is not kept from memory.

    What is discarded goes when `delete_discarded` is called.
    """

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = dict(objects)
        self.descriptions: dict[str, StoredRecording] = {}
        self.opened: list[IO[bytes]] = []
        self.large = False
        self.before_keep: Callable[[], None] = lambda: None
        self.removed: list[str] = []
        self.discarded: list[str] = []
        self.error: Exception | None = None
        """What S3 says to deletions."""

    async def fetch(self, key: str) -> Fetched:
        """Read an object."""
        content = io.BytesIO(self._read(key))
        self.opened.append(content)
        return Fetched(key, content, len(content.getvalue()), hashlib.sha256(content.getvalue()).hexdigest())

    async def keep(self, fetched: Fetched, audio_key: str, recording: StoredRecording) -> str:
        """Keep what was fetched, from memory or, when it is `large`, by a copy of its object."""
        self.before_keep()
        fetched.content.seek(0)
        self.objects[audio_key] = self._read(fetched.key) if self.large else fetched.content.read()
        self.descriptions[audio_key] = recording
        return f"s3://sori/{audio_key}"

    async def find(self, prefix: str) -> KeptRecording | None:
        """Return what is kept under a key that starts with `prefix`."""
        found = next((key for key in self.objects if key.startswith(prefix)), None)
        return None if found is None else KeptRecording(found, f"s3://sori/{found}", self.descriptions.get(found))

    async def remove_all(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""
        self.removed.append(prefix)
        if self.error:
            raise self.error
        for key in [key for key in self.objects if key.startswith(prefix)]:
            del self.objects[key]

    def discard(self, key: str) -> None:
        """Delete the object soon."""
        self.discarded.append(key)

    async def delete_discarded(self) -> None:
        """Delete what was discarded."""
        while self.discarded:
            self.objects.pop(self.discarded.pop(), None)

    def _read(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissingError(key)
        return self.objects[key]
