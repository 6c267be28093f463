"""Empties the inbox of what a crash left there: by age, and never what an unfinished job still needs."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from gateway.submissions import PREFIX

log = structlog.get_logger()

LOOKS_PER_AGE = 10
MAX_LOOK_SECONDS = 300.0


class Inbox(Protocol):
    """Where recordings' bytes go first."""

    def older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        """Yield the keys of objects that were written before `moment`, a page at a time."""

    async def remove_all(self, keys: list[str]) -> None:
        """Delete objects."""

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        """Abort multipart uploads that were begun before `moment`; return how many."""


class Jobs(Protocol):
    """The job documents."""

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""


class Sweeper:
    """Looks again and again; any number of replicas may do so."""

    def __init__(self, inbox: Inbox, jobs: Jobs, max_age: timedelta) -> None:
        self._inbox = inbox
        self._jobs = jobs
        self._max_age = max_age
        self._left: set[str] = set()
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
                await self._sweep(datetime.now(UTC) - self._max_age)
            except Exception as error:  # noqa: BLE001 - an outage: the next look tries again
                log.warning("sweeper waits", reason=type(error).__name__)

    async def _sweep(self, moment: datetime) -> None:
        """Remove what no job needed at the look before this one either.

        An object can be older than it is new: S3 dates a multipart upload from its beginning, and some servers a copy
        like its original. Its job may be about to be inserted, which takes less time than is between two looks.
        """
        left: set[str] = set()
        removed = 0
        async for keys in self._inbox.older_than(moment):
            unfinished = await self._jobs.unfinished(list({_job_id(key) for key in keys}))
            needless = {key for key in keys if _job_id(key) not in unfinished}
            again = sorted(needless & self._left)
            await self._inbox.remove_all(again)
            removed += len(again)
            left |= needless
        self._left = left
        aborted = await self._inbox.abort_unfinished(PREFIX, moment)
        if removed or aborted:
            log.info("inbox swept", removed=removed, aborted_uploads=aborted)


def _job_id(key: str) -> str:
    """Return the job that an inbox object is for: inbox/<job_id>, or one of several at inbox/<job_id>.<hex>."""
    return key.removeprefix(PREFIX).partition(".")[0]
