"""MongoDB: the `analyses` collection, each change of it one conditional update."""

from datetime import UTC, datetime
from typing import Any

from pymongo import ASCENDING, ReturnDocument

from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from chassis.batches import Batches
from chassis.mongodb import MongoDB, insert_new, translating
from contracts.events import Reference
from contracts.failures import FailureCode

MARK_SECONDS = 7 * 24 * 3600
"""How long a purged job is remembered: longer than anything about it can be in flight."""
_PENDING = AnalysisStatus.PENDING.value
_PURGED = AnalysisStatus.PURGED.value
_INDEXES: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("cache", "cache_key", {"status": AnalysisStatus.COMPLETED.value}, {}),
    ("deadlines", "deadline", {"status": _PENDING}, {}),
    ("not_announced", "announced", {"announced": False}, {}),
    ("purged", "purged_at", {"status": _PURGED}, {"expireAfterSeconds": MARK_SECONDS}),
)
"""Each index: its name, its field, the documents that it covers, and further options."""
_DESCRIPTION = ("traceparent", "token_id", "s3_url", "cache_key", "reference_json")


class AnalysisStore:
    """The collection; `result_json` and `reference_json` are text, since BSON cannot hold every JSON object."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._analyses = mongodb.collection("analyses")
        self._inserts = Batches(self._insert_all)
        self._caches = Batches(self._find_cached)

    async def prepare(self) -> None:
        """Create the indexes for the queries of the cache and of the deadlines."""
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

    async def reschedule(self, analysis: Analysis, *, attempt: int, deadline: datetime | None) -> bool:
        """Set attempt and deadline of a pending analysis; False when it is not pending or its deadline has changed."""
        with translating():
            changed = await self._analyses.update_one(
                {"_id": analysis.job_id, "status": _PENDING, "deadline": analysis.deadline},
                {"$set": {"attempt": attempt, "deadline": deadline}},
            )
        return bool(changed.matched_count)

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of a pending analysis and return it; None when none is pending: only one caller wins."""
        with translating():
            found = await self._analyses.find_one_and_update(
                {"_id": job_id, "status": _PENDING},
                {"$set": {**_outcome_fields(outcome), "announced": announced}},
                return_document=ReturnDocument.AFTER,
            )
        return None if found is None else _analysis(found)

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""
        with translating():
            late = self._analyses.find({"status": _PENDING, "deadline": {"$lt": now}}).limit(limit)
            silent = self._analyses.find({"announced": False}).limit(limit)
            documents = [*await silent.to_list(limit), *await late.to_list(limit)]
        return [_analysis(document) for document in documents]

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""
        with translating():
            await self._analyses.update_one({"_id": job_id, "announced": False}, {"$set": {"announced": True}})

    async def forget(self, job_id: str) -> None:
        """Replace the job's analysis, if any, by a mark that it was purged; the mark expires after MARK_SECONDS."""
        mark = {"status": _PURGED, "purged_at": datetime.now(UTC)}
        with translating():
            await self._analyses.replace_one({"_id": job_id}, mark, upsert=True)

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
        "s3_url": analysis.s3_url,
        "cache_key": analysis.cache_key,
        "reference_json": None if analysis.reference is None else analysis.reference.model_dump_json(),
        "attempt": analysis.attempt,
        "deadline": analysis.deadline,
        "created_at": analysis.created_at,
        **({"status": _PENDING} if analysis.outcome is None else _outcome_fields(analysis.outcome)),
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
    if status != AnalysisStatus.PENDING:
        code = document["code"]
        outcome = Outcome(
            status,
            result_json=document["result_json"],
            code=None if code is None else FailureCode(code),
            cached=document["cached"],
            by=document.get("concluded_by"),
        )
    reference_json = document.get("reference_json")  # earlier versions kept none
    return Analysis(
        job_id=document["_id"],
        traceparent=document["traceparent"],
        token_id=document["token_id"],
        s3_url=document["s3_url"],
        cache_key=document["cache_key"],
        reference=None if reference_json is None else Reference.model_validate_json(reference_json),
        attempt=document["attempt"],
        deadline=document["deadline"],
        created_at=document["created_at"],
        outcome=outcome,
    )
