"""The analysis server's bucket in memory, for unit tests; it keeps the real one's promises."""

import asyncio
import itertools
from pathlib import Path

from analysis_server.errors import StorageError
from analysis_server.settings import Settings
from analysis_server.storage import Bucket

SETTINGS = Settings(s3_bucket_name="bucket")


class BucketInMemory(Bucket):
    """The bucket; `away` makes every call fail as if S3 were away, `forbidden` names calls that are not allowed.

    While `deletes` is not set, deletions take their time.
    """

    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.away = False
        self.forbidden: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.deletes = asyncio.Event()
        self.deletes.set()
        self._writes = itertools.count()

    async def fetch(self, key: str, path: Path, limit: int) -> str:
        """Write an object to a file."""
        path.write_bytes(await self._got("fetch", key, limit))  # noqa: ASYNC240 - a few bytes
        return "etag"

    async def look(self, key: str, limit: int) -> str:
        """Return an object's ETag."""
        await self._got("look", key, limit)
        return "etag"

    async def read(self, key: str, limit: int) -> bytes:
        """Return an object."""
        return await self._got("read", key, limit)

    async def read_now(self, key: str, limit: int) -> bytes:
        """Return an object."""
        return await self._got("read_now", key, limit)

    async def write(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._ask("write", key)
        self.objects[key] = (next(self._writes), content)

    async def remove(self, key: str) -> None:
        """Delete an object."""
        self._ask("remove", key)
        await self.deletes.wait()
        self.objects.pop(key, None)

    async def listed(self, prefix: str) -> dict[str, str]:
        """List objects."""
        self._ask("listed", prefix)
        found = sorted((at, key) for key, (at, _) in self.objects.items() if key.startswith(prefix))
        return {key: str(at) for at, key in found}

    async def _got(self, call: str, key: str, limit: int) -> bytes:
        self._ask(call, key)
        if key not in self.objects:
            raise StorageError("missing")
        content = self.objects[key][1]
        if len(content) > limit:
            raise StorageError("too_large")
        return content

    def _ask(self, call: str, key: str) -> None:
        self.calls.append((call, key))
        if self.away:
            raise StorageError("unavailable")
        if call in self.forbidden:
            raise StorageError("forbidden")
