"""Removes references that no token names any more, once no recording on its way can need them."""

import asyncio
from collections.abc import Set
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from gateway.references import PREFIX, Record, key_in

log = structlog.get_logger()

LOOKS_PER_AGE = 10
MAX_LOOK_SECONDS = 300.0


class Storage(Protocol):
    """Where the bytes lie."""

    async def remove_under(self, prefix: str) -> None:
        """Delete every object whose key starts with `prefix`."""

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads that were begun before `moment`; return how many."""


class Records(Protocol):
    """The `references` collection."""

    async def all(self) -> list[Record]:
        """Return every record."""

    async def named(self) -> list[str]:
        """Return every address of a reference that a token has."""

    async def mark_used(self, keys: list[str]) -> None:
        """Note that these are used, unless they are being swept."""

    async def mark_unused(self, keys: list[str]) -> None:
        """Note that those of these that were used are not any more."""

    async def condemn(self, record: Record) -> bool:
        """Note that one is being swept; False when it is no longer as it was."""

    async def forget(self, key: str) -> None:
        """Remove the record."""


class ReferenceSweeper:
    """Looks again and again; any number of replicas may do so.

    Whether a reference is used is read from the tokens, not told by whoever changes one: so it is true whatever changed
    them, and whatever died meanwhile.
    """

    def __init__(self, records: Records, storage: Storage, max_age: timedelta) -> None:
        self._records = records
        self._storage = storage
        self._max_age = max_age
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to sweep."""
        self._sweeping = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop sweeping."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait([self._sweeping])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(min(self._max_age.total_seconds() / LOOKS_PER_AGE, MAX_LOOK_SECONDS))
            try:
                await self.look(datetime.now(UTC) - self._max_age)
            except Exception as error:  # noqa: BLE001 - an outage: the next look tries again
                log.warning("reference sweeper waits", reason=type(error).__name__)

    async def look(self, moment: datetime) -> None:
        """Note what is used by now, and remove what was unused before `moment` already."""
        aborted = await self._storage.abort_unfinished(PREFIX, moment)
        records = await self._records.all()
        named = {key_in(url) for url in await self._records.named()}
        await self._mark([record for record in records if record.swept_at is None], named)
        removed = 0
        for record in records:
            if record.swept_at is None and record.key not in named and _is_before(record.unused_since, moment):
                removed += await self._remove(record)
            elif _is_before(record.swept_at, moment):
                await self._remove_for_good(record)
        if removed or aborted:
            log.info("references swept", removed=removed, aborted_uploads=aborted)

    async def _mark(self, records: list[Record], named: Set[str | None]) -> None:
        used = {record.key for record in records if record.unused_since is None}
        unused = {record.key for record in records} - used
        await self._records.mark_used(sorted(unused & named))
        await self._records.mark_unused(sorted(used - named))

    async def _remove(self, record: Record) -> bool:
        if not await self._records.condemn(record):
            return False
        await self._storage.remove_under(record.key)
        return True

    async def _remove_for_good(self, record: Record) -> None:
        """Remove once more: an analysis server that was reading a reference may have kept something beside it."""
        await self._storage.remove_under(record.key)
        await self._records.forget(record.key)


def _is_before(at: datetime | None, moment: datetime) -> bool:
    return at is not None and at < moment
