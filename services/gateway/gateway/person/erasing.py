"""Deletes everything of a person who asked for it: a state that is looked at again until nothing can come any more."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from chassis.errors import BackEndError, reason_of
from chassis.periodic import LOOKS_PER_AGE, Periodic
from contracts import events
from gateway.jobs.documents import Jobs
from gateway.jobs.removals import Ending
from gateway.person.documents import OwnedJobs
from gateway.uploads.idempotency import Claims

log = structlog.get_logger()

LOOK_SECONDS = 1.0
ERASURES_PER_LOOK = 20
JOBS_PER_LOOK = 500
"""How many jobs of one person are purged with each look."""
MAX_PURGING = 5000
"""How many jobs may be waiting to be purged. With so many, the services that remove them are away."""
LONGEST_PAUSE = timedelta(minutes=1)
FAILURE_PAUSE = timedelta(seconds=5)


@dataclass(frozen=True)
class Erasure:
    """That somebody asked, at `asked_at`, for the deletion of everything that was begun by then."""

    owner: str
    asked_at: datetime


class Erasures(Protocol):
    """The `erasures` collection."""

    async def ask(self, owner: str, now: datetime) -> None:
        """Note that this was asked. Once it returns, it cannot be lost; of two requests the later one counts."""

    async def due(self, now: datetime, limit: int) -> list[Erasure]:
        """Return up to `limit` erasures that are to be looked at, the longest due first."""

    async def look_again(self, erasure: Erasure, at: datetime) -> None:
        """Have it looked at then, unless it was asked for again meanwhile."""

    async def finish(self, erasure: Erasure) -> None:
        """Forget it, unless it was asked for again meanwhile."""


class SessionsOf(Protocol):
    """The sessions of people."""

    async def end_all(self, owner: str, until: datetime) -> None:
        """End the person's sessions that began by then."""


class Erasing:
    """Purges what an erasure names; every gateway may do so, because each of its effects can be repeated.

    An upload that was under way is a job only later, so an erasure is looked at for as long as one may take. It counts
    when the upload began: what somebody sends after they have asked is theirs to keep.
    """

    def __init__(
        self,
        erasures: Erasures,
        owned: OwnedJobs,
        jobs: Jobs,
        sessions: SessionsOf,
        claims: Claims,
        *,
        longest_upload: timedelta,
        look_soon: Callable[[], None],
    ) -> None:
        self._erasures = erasures
        self._owned = owned
        self._jobs = jobs
        self._sessions = sessions
        self._claims = claims
        self._longest_upload = longest_upload
        self._look_soon = look_soon
        self._looking = Periodic(self.look, seconds=LOOK_SECONDS, waiting="erasures wait", at_once=True)

    def start(self) -> None:
        """Begin to look."""
        self._looking.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._looking.stop()

    async def ask(self, owner: str) -> datetime:
        """Note that everything of this owner is to be deleted that was begun by now; return now."""
        now = events.now()
        await self._erasures.ask(owner, now)
        self._looking.wake()
        with suppress(BackEndError):  # the loop ends them for certain; here it is done before the answer
            await self._sessions.end_all(owner, now)
        return now

    async def look(self) -> None:
        """Go on with the erasures that are due. One that fails holds up no other."""
        for erasure in await self._erasures.due(datetime.now(UTC), ERASURES_PER_LOOK):
            try:
                await self._go_on(erasure)
            except Exception as error:  # noqa: BLE001 - most likely an outage: it is tried again
                log.warning("erasure waits", owner=erasure.owner, reason=reason_of(error))
                await self._erasures.look_again(erasure, datetime.now(UTC) + FAILURE_PAUSE)

    async def _go_on(self, erasure: Erasure) -> None:
        await self._sessions.end_all(erasure.owner, erasure.asked_at)
        room = MAX_PURGING - await self._jobs.purging()
        limit = max(0, min(JOBS_PER_LOOK, room))
        found = await self._owned.begun_by(erasure.owner, erasure.asked_at, limit) if limit else []
        if found:
            # The claims first: once a job is to be purged, nothing here leads to them any more.
            await self._claims.forget(found)
            await self._jobs.ask_end(Ending.PURGE, found, events.now())
            self._look_soon()
            log.info("a person's jobs are to be purged", owner=erasure.owner, count=len(found))
        now = datetime.now(UTC)
        age = now - erasure.asked_at
        if len(found) == limit:
            await self._erasures.look_again(erasure, now)
        elif age < self._longest_upload:
            await self._erasures.look_again(erasure, now + min(age / LOOKS_PER_AGE, LONGEST_PAUSE))
        else:
            await self._erasures.finish(erasure)
            log.info("erasure finished", owner=erasure.owner)
