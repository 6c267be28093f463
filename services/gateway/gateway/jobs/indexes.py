"""MongoDB: the indexes of the `jobs` collection, which the jobs' and the redrive's stores share."""

from typing import Any

from pymongo import ASCENDING, DESCENDING

from chassis.mongodb import translating
from contracts.job import Status

NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]
WITH_METADATA = {"metadata_terms": {"$type": "string"}}
"""The jobs with metadata. A query has to ask for them in these words to get the index."""
RETRIES = {"recording_of": {"$type": "string"}}
"""The retries. As above."""
DUE = "publish_at"
CANCELS = "cancels"
PURGES = "purges"
_ASKED = {"$type": "date"}
WHICH: dict[str, dict[str, Any]] = {
    DUE: {"view.status": Status.PROCESSING.value},
    # A cancel is done when the job has ended; a purge when its document is gone.
    CANCELS: {"view.status": Status.PROCESSING.value, "cancel_asked_at": _ASKED},
    PURGES: {"purge_asked_at": _ASKED},
}
"""The indexes of `publish_at`, and which documents each has. An ended job is in none but the purges'."""


OWNED: dict[str, Any] = {"owner": {"$type": "string"}}
"""The jobs that belong to somebody."""
SCORED: dict[str, Any] = {**OWNED, "scores": {"$type": "object"}}
"""Those of them that have scores. A query has to ask for them in these words to get the index."""


def of_owner(owner: str) -> dict[str, Any]:
    """Return what to ask for of one owner's jobs, in words that get their index."""
    return {"owner": {"$eq": owner, **OWNED["owner"]}}


async def create(jobs: Any) -> None:
    """Create the indexes.

    Four for lists (all, a token's, an owner's, by metadata), one to count owners' unfinished jobs, one for scores, and
    three for what is told again. And one that lets each number of a recording's retries be there once.
    """
    with translating():
        await jobs.create_index([("view.status", ASCENDING), *NEWEST], name="status")
        await jobs.create_index([("token_id", ASCENDING), *NEWEST], name="token")
        await jobs.create_index([("owner", ASCENDING), *NEWEST], name="owner", partialFilterExpression=OWNED)
        await jobs.create_index(
            [("owner", ASCENDING), ("view.status", ASCENDING)],
            name="waiting",
            partialFilterExpression={**OWNED, "view.status": Status.PROCESSING.value},
        )
        await jobs.create_index(
            [("metadata_terms", ASCENDING), *NEWEST], name="metadata", partialFilterExpression=WITH_METADATA
        )
        await jobs.create_index(
            [("owner", ASCENDING), ("token_id", ASCENDING), *NEWEST], name="scores", partialFilterExpression=SCORED
        )
        await jobs.create_index(
            [("recording_of", ASCENDING), ("retry_number", ASCENDING)],
            name="retries",
            unique=True,
            partialFilterExpression=RETRIES,
        )
        for name, which in WHICH.items():
            await jobs.create_index([("publish_at", ASCENDING)], name=name, partialFilterExpression=which)
