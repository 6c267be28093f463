"""MongoDB: the `analyses` collection, each change of it one conditional update."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, ReturnDocument

from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from chassis.batches import Batches
from chassis.mongodb import MongoDB, insert_new, translating
from contracts import events
from contracts.events import Reference
from contracts.failures import FailureCode

MARK_SECONDS = 7 * 24 * 3600
"""How long a purged job is remembered: longer than anything about it can be in flight."""
_PENDING = AnalysisStatus.PENDING.value
_WAITING = AnalysisStatus.WAITING.value
_PURGED = AnalysisStatus.PURGED.value
_INDEXES: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("cache", "cache_key", {"status": AnalysisStatus.COMPLETED.value}, {}),
    ("deadlines", "deadline", {"status": _PENDING}, {}),
    ("waiting", "created_at", {"status": _WAITING}, {}),
    ("not_announced", "announced", {"announced": False}, {}),
    ("purged", "purged_at", {"status": _PURGED}, {"expireAfterSeconds": MARK_SECONDS}),
)
"""Each index: its name, its field, the documents that it covers, and further options."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any date here: asking for later ones has a count read the index alone."""
_DESCRIPTION = ("traceparent", "token_id", "metadata_json", "owner", "s3_url", "cache_key", "reference_json")


class AnalysisStore:
    """The collection; what ends in `_json` is text, since BSON cannot hold every JSON object."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._analyses = mongodb.collection("analyses")
        self._inserts = Batches(self._insert_all)
        self._caches = Batches(self._find_cached)

    async def prepare(self) -> None:
        """Create the indexes for the queries of the cache, of the deadlines and of what waits."""
        with translating():
            for name, field, which, options in _INDEXES:
                await self._analyses.create_index(
                    [(field, ASCENDING)], name=name, partialFilterExpression=which, **options
                )

    async def insert(self, analysis: Analysis) -> bool:
        """Store a new analysis; False when the job already has one."""
        return await self._inserts.answer(analysis)

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis; None when there is none."""
        with translating():
            found = await self._analyses.find_one({"_id": job_id})
        return None if found is None else _analysis(found)

    async def cached(self, cache_key: str) -> str | None:
        """Return the result, as JSON text, of an earlier analysis under this key; None when there is none."""
        return await self._caches.answer(cache_key)

    async def describe(self, analysis: Analysis) -> None:
        """Add the recording's data to an analysis whose webhook came first; leave one that was purged as it is."""
        fields = {name: _document(analysis)[name] for name in _DESCRIPTION}
        with translating():
            await self._analyses.update_one({"_id": analysis.job_id, "status": {"$ne": _PURGED}}, {"$set": fields})

    async def reschedule(self, analysis: Analysis, later: Analysis) -> bool:
        """Write whether it waits, the attempt, the deadline and the failures of `later`, if it is still as `analysis`.

        False when the analysis has ended, or its status or deadline is another.
        """
        with translating():
            changed = await self._analyses.update_one(
                {"_id": analysis.job_id, "status": analysis.status.value, "deadline": analysis.deadline},
                {"$set": _schedule(later)},
            )
        return bool(changed.matched_count)

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of an analysis that has none, and return it; None when there is none: one caller wins."""
        with translating():
            found = await self._analyses.find_one_and_update(
                {"_id": job_id, "status": {"$in": [_PENDING, _WAITING]}},
                {"$set": {**_outcome_fields(outcome), "announced": announced}},
                return_document=ReturnDocument.BEFORE,
            )
        return None if found is None else replace(_analysis(found), outcome=outcome)

    async def unannounced(self, limit: int) -> list[Analysis]:
        """Return analyses whose outcome was not announced."""
        with translating():
            found = await self._analyses.find({"announced": False}).limit(limit).to_list(limit)
        return [_analysis(document) for document in found]

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses that were asked for and whose deadline has passed."""
        with translating():
            late = self._analyses.find({"status": _PENDING, "deadline": {"$lt": now}}).limit(limit)
            found = await late.to_list(limit)
        return [_analysis(document) for document in found]

    async def due(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses that wait and are to be asked for, the oldest first."""
        with translating():
            waiting = self._analyses.find({"status": _WAITING, "deadline": {"$lte": now}}).sort("created_at", ASCENDING)
            found = await waiting.limit(limit).to_list(limit)
        return [_analysis(document) for document in found]

    async def count_asked(self, limit: int) -> int:
        """Return how many analyses were asked for and have not ended; `limit` if there are more."""
        return await self._count({"status": _PENDING, "deadline": {"$gt": _LONG_AGO}}, limit)

    async def count_waiting(self, limit: int) -> int:
        """Return how many analyses wait; `limit` if there are more."""
        return await self._count({"status": _WAITING, "created_at": {"$gt": _LONG_AGO}}, limit)

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""
        with translating():
            await self._analyses.update_one({"_id": job_id, "announced": False}, {"$set": {"announced": True}})

    async def forget(self, job_id: str) -> None:
        """Replace the job's analysis, if any, by a mark that it was purged; the mark expires after MARK_SECONDS."""
        mark = {"status": _PURGED, "purged_at": datetime.now(UTC)}
        with translating():
            await self._analyses.replace_one({"_id": job_id}, mark, upsert=True)

    async def _count(self, which: dict[str, Any], limit: int) -> int:
        with translating():
            return int(await self._analyses.count_documents(which, limit=limit))

    async def _insert_all(self, analyses: list[Analysis]) -> list[bool]:
        return await insert_new(self._analyses, [_document(analysis) for analysis in analyses])

    async def _find_cached(self, cache_keys: list[str]) -> list[str | None]:
        query = {"cache_key": {"$in": cache_keys}, "status": AnalysisStatus.COMPLETED.value}
        with translating():
            cursor = self._analyses.find(query, {"cache_key": 1, "result_json": 1})
            found = {document["cache_key"]: str(document["result_json"]) for document in await cursor.to_list(None)}
        return [found.get(cache_key) for cache_key in cache_keys]


def _document(analysis: Analysis) -> dict[str, Any]:
    return {
        "_id": analysis.job_id,
        "traceparent": analysis.traceparent,
        "token_id": analysis.token_id,
        "metadata_json": None if analysis.metadata is None else events.to_json(analysis.metadata),
        "owner": analysis.owner,
        "s3_url": analysis.s3_url,
        "cache_key": analysis.cache_key,
        "reference_json": None if analysis.reference is None else analysis.reference.model_dump_json(),
        "created_at": analysis.created_at,
        **_schedule(analysis),
        **({} if analysis.outcome is None else _outcome_fields(analysis.outcome)),
    }


def _schedule(analysis: Analysis) -> dict[str, Any]:
    return {
        "status": analysis.status.value,
        "attempt": analysis.attempt,
        "deadline": analysis.deadline,
        "failures": analysis.failures,
    }


def _outcome_fields(outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status.value,
        "result_json": outcome.result_json,
        "code": None if outcome.code is None else outcome.code.value,
        "cached": outcome.cached,
        "concluded_by": outcome.by,
        "concluded_at": datetime.now(UTC),
    }


def _analysis(document: dict[str, Any]) -> Analysis:
    status = AnalysisStatus(document["status"])
    if status == AnalysisStatus.PURGED:
        return Analysis(document["_id"], "", outcome=Outcome(status, by="purge"), created_at=document["purged_at"])
    outcome = None
    if status not in {AnalysisStatus.PENDING, AnalysisStatus.WAITING}:
        code = document["code"]
        outcome = Outcome(
            status,
            result_json=document["result_json"],
            code=None if code is None else FailureCode(code),
            cached=document["cached"],
            by=document.get("concluded_by"),
        )
    # Earlier versions kept none of these, and counted no failures.
    reference_json, metadata_json = document.get("reference_json"), document.get("metadata_json")
    return Analysis(
        job_id=document["_id"],
        traceparent=document["traceparent"],
        token_id=document["token_id"],
        metadata=None if metadata_json is None else events.from_json(metadata_json),
        owner=document.get("owner"),
        s3_url=document["s3_url"],
        cache_key=document["cache_key"],
        reference=None if reference_json is None else Reference.model_validate_json(reference_json),
        attempt=document["attempt"],
        waiting=status == AnalysisStatus.WAITING,
        deadline=document["deadline"],
        failures=document.get("failures", 0),
        created_at=document["created_at"],
        outcome=outcome,
    )
