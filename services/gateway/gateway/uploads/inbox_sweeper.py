"""Removes what a crash left in the inbox: objects that are old, and that no unfinished job needs."""

from datetime import UTC, datetime, timedelta

import structlog

from chassis.errors import AwayError, BackEndError, reason_of
from chassis.periodic import Periodic, pace
from gateway.audio import ObjectStore
from gateway.jobs.documents import Jobs
from gateway.uploads.submissions import PREFIX

log = structlog.get_logger()

MAX_LOOK_SECONDS = 300.0


class InboxSweeper:
    """Looks again and again; any number of replicas may do so."""

    def __init__(self, store: ObjectStore, jobs: Jobs, max_age: timedelta) -> None:
        self._store = store
        self._jobs = jobs
        self._not_needed: set[str] = set()
        self._sweeping = Periodic(
            lambda: self.look(datetime.now(UTC) - max_age),
            seconds=pace(max_age, MAX_LOOK_SECONDS),
            waiting="sweeper waits",
        )

    def start(self) -> None:
        """Begin to sweep."""
        self._sweeping.start()

    async def stop(self) -> None:
        """Stop sweeping."""
        await self._sweeping.stop()

    async def look(self, moment: datetime) -> None:
        """Remove objects from before `moment` that no job needs now, nor needed at the last look.

        One look is not enough, because an object's date may be older than the object: S3 dates a multipart upload from
        its beginning, and some servers date a copy like its original. The job of such an object may be about to be
        inserted, which takes less time than there is between two looks.
        """
        not_needed: set[str] = set()
        removed = 0
        async for keys in self._store.older_than(PREFIX, moment):
            unfinished = await self._jobs.unfinished(list({_job_id(key) for key in keys}))
            now = {key for key in keys if _job_id(key) not in unfinished}
            twice = sorted(now & self._not_needed)
            removed += await self._remove(twice)
            not_needed |= now
        self._not_needed = not_needed
        aborted = await self._store.abort_unfinished(PREFIX, moment)
        if removed or aborted:
            log.info("inbox swept", removed=removed, aborted_uploads=aborted)

    async def _remove(self, keys: list[str]) -> int:
        """Remove these; what the store refuses must not keep the other pages from being swept."""
        try:
            await self._store.remove_all(keys)
        except AwayError:
            raise
        except BackEndError as error:
            log.warning("inbox objects stay", keys=len(keys), reason=reason_of(error))
            return 0
        return len(keys)


def _job_id(key: str) -> str:
    """Return the job that an inbox object is for: inbox/<job_id>, or one of several at inbox/<job_id>.<hex>."""
    return key.removeprefix(PREFIX).partition(".")[0]
