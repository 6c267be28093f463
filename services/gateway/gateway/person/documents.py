"""What is asked of the jobs of one owner; `store` implements it with MongoDB."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from contracts.job import Job
from contracts.scores import Scores
from gateway.jobs.listing import Cursor


@dataclass(frozen=True)
class Scored:
    """The scores of one recording."""

    job_id: str
    token_id: str
    created_at: datetime
    scores: Scores


class OwnedJobs(Protocol):
    """The `jobs` collection, as far as it is somebody's. A job that is to be purged is not there any more."""

    async def page(self, owner: str, after: Cursor | None, limit: int) -> list[Job]:
        """Return the newest `limit` jobs after the cursor, each with its history and its result."""

    async def scored(self, owner: str, after_token: str, limit: int) -> list[Scored]:
        """Return the first `limit` scores of tokens whose id comes after this one: by token id, the newest first."""

    async def begun_by(self, owner: str, moment: datetime, limit: int) -> list[str]:
        """Return the ids of up to `limit` jobs whose upload, or retry, had begun by then."""
