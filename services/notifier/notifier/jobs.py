"""The job documents as the notifier reads and changes them; `store` implements this with MongoDB."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.events import RecordingData
from contracts.job import Change, Job


@dataclass(frozen=True)
class StandingJob:
    """What Expiry needs to know of a job that has not changed for long."""

    job_id: str
    recording: RecordingData
    traceparent: str
    revision: int
    is_held: bool


class Jobs(Protocol):
    """The `jobs` collection."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history; None when there is none."""

    async def revisions(self, job_ids: Collection[str]) -> dict[str, int]:
        """Return the revision of each of these jobs; one that is not there is left out."""

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job has changed since it was read, in its revision or its history."""

    async def remove_if_removed(self, job_id: str, removed: Sequence[str]) -> None:
        """Delete the job's document if all events of these types say what of it was removed."""

    async def standing_since(self, moment: datetime, redriven_since: datetime) -> Sequence[StandingJob]:
        """Return some of the unfinished jobs that have not changed since `moment`, the oldest first.

        Of those that are not held, only those that the gateway has told again since `redriven_since`, in vain, or that
        it never tells again.
        """
