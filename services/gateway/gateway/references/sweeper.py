"""Removes reference audio that no token names any more, once no recording under way can need it."""

from collections.abc import Set
from datetime import UTC, datetime, timedelta

import structlog

from chassis.errors import AwayError, BackEndError, reason_of
from chassis.periodic import Periodic, pace
from contracts.addresses import REFERENCES, UNDERSTOOD
from gateway.audio import ObjectStore
from gateway.references.references import Record, Records, key_in

log = structlog.get_logger()

MAX_LOOK_SECONDS = 300.0


class ReferenceSweeper:
    """Looks again and again; any number of replicas may do so.

    At each look it reads from the tokens which references are used. Whoever changes a token need not tell it, so a
    process that dies after a change loses nothing.
    """

    def __init__(self, records: Records, store: ObjectStore, max_age: timedelta) -> None:
        self._records = records
        self._store = store
        self._sweeping = Periodic(
            lambda: self.look(datetime.now(UTC) - max_age),
            seconds=pace(max_age, MAX_LOOK_SECONDS),
            waiting="reference sweeper waits",
        )

    def start(self) -> None:
        """Begin to sweep."""
        self._sweeping.start()

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._sweeping.stop()

    async def look(self, moment: datetime) -> None:
        """Record which references are used now, and remove those that have been unused since before `moment`."""
        aborted = await self._store.abort_unfinished(REFERENCES, moment)
        records = await self._records.all()
        named = {key_in(url) for url in await self._records.named()}
        await self._mark([record for record in records if record.swept_at is None], named)
        removed = 0
        for record in records:
            try:
                removed += await self._sweep(record, named, moment)
            except AwayError:
                raise
            except BackEndError as error:
                # It stays condemned, is tried again at each look, and must not hold up the others.
                log.warning("a reference stays", key=record.key, reason=reason_of(error))
        if removed or aborted:
            log.info("references swept", removed=removed, aborted_uploads=aborted)

    async def _mark(self, records: list[Record], named: Set[str | None]) -> None:
        used = {record.key for record in records if record.unused_since is None}
        unused = {record.key for record in records} - used
        await self._records.mark_used(sorted(unused & named))
        await self._records.mark_unused(sorted(used - named))

    async def _sweep(self, record: Record, named: Set[str | None], moment: datetime) -> bool:
        """Remove a record's object if its time has come; tell whether it was removed for the first time."""
        if record.swept_at is None and record.key not in named and _is_before(record.unused_since, moment):
            return await self._remove(record)
        if _is_before(record.swept_at, moment):
            await self._remove_for_good(record)
        return False

    async def _remove(self, record: Record) -> bool:
        if not await self._records.condemn(record):
            return False
        await self._remove_all(record.key)
        return True

    async def _remove_for_good(self, record: Record) -> None:
        """Remove once more: an analysis that was reading the reference may have kept what it understood since."""
        await self._remove_all(record.key)
        await self._records.forget(record.key)

    async def _remove_all(self, key: str) -> None:
        """Remove the object, and what the analysis server has kept of it; earlier versions kept that beside it."""
        await self._store.remove_under(key)
        await self._store.remove_under(f"{UNDERSTOOD}{key}")


def _is_before(at: datetime | None, moment: datetime) -> bool:
    return at is not None and at < moment
