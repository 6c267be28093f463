"""What the redrive asks of the job documents; `store` implements it with MongoDB."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.events import RecordingData
from gateway.jobs.removals import Ending
from gateway.redrive.timing import StandingJob, Wait


@dataclass(frozen=True)
class Removal:
    """A cancel or a purge that is not done yet."""

    ending: Ending
    job_id: str
    recording: RecordingData
    traceparent: str
    publish_at: datetime
    redrives: int


class Redrives(Protocol):
    """The fields of the job documents that say what is told again, and when.

    A claim is a conditional change of `publish_at`: of all gateways that saw the same time, one wins. What is noted
    about a claim later is noted only if nobody has changed the time since.
    """

    async def prepare(self) -> None:
        """Create the indexes."""

    async def due(self, now: datetime, *, received: bool, limit: int) -> list[StandingJob]:
        """Return up to `limit` unfinished jobs whose time has come, the longest due first.

        Those whose history has upload.received, or those whose history lacks it. None that is to be cancelled or
        purged.
        """

    async def postpone(self, waits: list[tuple[StandingJob, Wait]]) -> None:
        """Have each of these jobs looked at later, unless its time was changed or its end asked for meanwhile."""

    async def claim(self, job: StandingJob, until: datetime) -> str | None:
        """Claim a job and return its upload.received as text, "" without one; None when another was faster."""

    async def removals(self, ending: Ending, now: datetime, limit: int) -> list[Removal]:
        """Return up to `limit` cancels or purges whose time has come."""

    async def claim_removal(self, removal: Removal, until: datetime) -> bool:
        """Claim a cancel or a purge; False when another gateway was faster, or it is done."""

    async def told(self, job_id: str, claimed: datetime, redrives: int, at: datetime, then: datetime) -> None:
        """Note that a claimed job was told at `at`, for the `redrives`-th time in a row; look again `then`."""

    async def hurry(self, job_id: str, claimed: datetime, then: datetime) -> None:
        """Note that a claimed job could not be told; look again `then`."""

    async def purges_told_in_vain(self, most: int) -> int:
        """Return how many purges have been told more than once and are not done; counted up to `most`."""

    async def longest_due(self) -> datetime | None:
        """Return the earliest time at which any unfinished job is to be looked at; None without any."""
