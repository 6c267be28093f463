"""The job documents as the notifier reads and changes them; `store` implements this with MongoDB."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.job import Change, Job


@dataclass(frozen=True)
class StandingJob:
    """What Expiry needs to know of a job that has not changed for long."""

    job_id: str
    token_id: str
    traceparent: str
    revision: int
    is_held: bool


class Jobs(Protocol):
    """The `jobs` collection."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history; None when there is none."""

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job has changed since it was read, in its revision or its history."""

    async def remove(self, job_id: str) -> None:
        """Delete the job's document; without one there is nothing to do."""

    async def standing_since(self, moment: datetime, marked_since: datetime) -> Sequence[StandingJob]:
        """Return some of the unfinished jobs that have not changed since `moment`, the oldest first.

        A job whose upload.received is still to be published is left out, because that event will move it. It is
        returned all the same if it was created before `marked_since`.
        """
