"""The job documents, as the notifier asks for them and changes them; `store` keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.job import Change, Job


@dataclass(frozen=True)
class StandingJob:
    """What is to be known of a job that has stood still for long."""

    job_id: str
    token_id: str
    traceparent: str
    revision: int
    is_held: bool


class Jobs(Protocol):
    """The `jobs` collection."""

    async def find(self, job_id: str) -> Job | None:
        """Return the job with its history."""

    async def update(self, job: Job, change: Change) -> bool:
        """Make the change; False when the job is no longer at this revision, or has had the event meanwhile."""

    async def remove(self, job_id: str) -> None:
        """Delete the job's document; done when there is none."""

    async def standing_since(self, moment: datetime, marked_since: datetime) -> Sequence[StandingJob]:
        """Return some of the unfinished jobs that have not changed since `moment`, the oldest first.

        None whose upload.received is still to be published, for that moves it, unless it came before `marked_since`.
        """
