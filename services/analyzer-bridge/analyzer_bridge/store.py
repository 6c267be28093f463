"""MongoDB: the `analyses` collection, each change of it one conditional update."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from analyzer_bridge.analyses import Analysis, AnalysisStatus, Outcome
from analyzer_bridge.batches import Batches
from analyzer_bridge.errors import AwayError
from contracts.events import Reference
from contracts.failures import FailureCode

ANSWER_MS = 5000
"""How long MongoDB may take before a message is tried again, milliseconds."""
MARK_SECONDS = 7 * 24 * 3600
"""How long a purged job is remembered: longer than anything about it can be in flight."""
_PENDING = AnalysisStatus.PENDING.value
_PURGED = AnalysisStatus.PURGED.value
_DUPLICATE_KEY = 11000
_DESCRIPTION = ("traceparent", "token_id", "s3_url", "cache_key", "reference_json")


class Analyses:
    """The collection; `result_json` and `reference_json` are text, since BSON cannot hold every JSON object."""

    def __init__(self, url: str) -> None:
        self._client: Any = AsyncIOMotorClient(
            url, serverSelectionTimeoutMS=ANSWER_MS, timeoutMS=ANSWER_MS, connectTimeoutMS=ANSWER_MS
        )
        self._analyses = self._client.get_default_database("sori").get_collection(
            "analyses",
            codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )
        self._inserts = Batches(self._insert_all)
        self._caches = Batches(self._find_cached)

    async def prepare(self) -> None:
        """Create the indexes that the cache and the deadlines ask by."""
        await self._analyses.create_index(
            [("cache_key", ASCENDING)],
            name="cache",
            partialFilterExpression={"status": AnalysisStatus.COMPLETED.value},
        )
        await self._analyses.create_index(
            [("deadline", ASCENDING)], name="deadlines", partialFilterExpression={"status": _PENDING}
        )
        await self._analyses.create_index(
            [("announced", ASCENDING)], name="not_announced", partialFilterExpression={"announced": False}
        )
        await self._analyses.create_index(
            [("purged_at", ASCENDING)],
            name="purged",
            partialFilterExpression={"status": _PURGED},
            expireAfterSeconds=MARK_SECONDS,
        )

    async def insert(self, analysis: Analysis) -> bool:
        """Keep a new analysis; False when the job has one."""
        return await self._inserts.answer(analysis)

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis."""
        with _noticing_outages():
            found = await self._analyses.find_one({"_id": job_id})
        return None if found is None else _analysis(found)

    async def cached(self, cache_key: str) -> str | None:
        """Return the result, as JSON text, of an earlier analysis under this key."""
        return await self._caches.answer(cache_key)

    async def describe(self, analysis: Analysis) -> None:
        """Say what an analysis is of whose webhook overtook its recording; not of one that was purged meanwhile."""
        fields = {name: _document(analysis)[name] for name in _DESCRIPTION}
        with _noticing_outages():
            await self._analyses.update_one({"_id": analysis.job_id, "status": {"$ne": _PURGED}}, {"$set": fields})

    async def reschedule(self, analysis: Analysis, *, attempt: int, deadline: datetime | None) -> bool:
        """Set attempt and deadline of a pending analysis; False when its deadline is not that of `analysis` now."""
        with _noticing_outages():
            changed = await self._analyses.update_one(
                {"_id": analysis.job_id, "status": _PENDING, "deadline": analysis.deadline},
                {"$set": {"attempt": attempt, "deadline": deadline}},
            )
        return bool(changed.matched_count)

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        """Record the outcome of a pending analysis and return it; None when none was pending: there is one winner."""
        with _noticing_outages():
            found = await self._analyses.find_one_and_update(
                {"_id": job_id, "status": _PENDING},
                {"$set": {**_outcome_fields(outcome), "announced": announced}},
                return_document=ReturnDocument.AFTER,
            )
        return None if found is None else _analysis(found)

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        """Return analyses whose deadline has passed, or whose outcome was not announced."""
        late = self._analyses.find({"status": _PENDING, "deadline": {"$lt": now}}).limit(limit)
        silent = self._analyses.find({"announced": False}).limit(limit)
        documents = [*await silent.to_list(limit), *await late.to_list(limit)]
        return [_analysis(document) for document in documents]

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""
        await self._analyses.update_one({"_id": job_id, "announced": False}, {"$set": {"announced": True}})

    async def forget(self, job_id: str) -> None:
        """Replace whatever is kept of the job by a mark that it was purged; the mark goes after MARK_SECONDS."""
        mark = {"status": _PURGED, "purged_at": datetime.now(UTC)}
        with _noticing_outages():
            await self._analyses.replace_one({"_id": job_id}, mark, upsert=True)

    async def is_up(self) -> bool:
        """Tell whether a primary answers."""
        await self._client.admin.command("ping")
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _insert_all(self, analyses: list[Analysis]) -> list[bool]:
        documents = [_document(analysis) for analysis in analyses]
        try:
            with _noticing_outages():
                await self._analyses.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            failed = {problem["index"]: problem["code"] for problem in error.details["writeErrors"]}
            if error.details["writeConcernErrors"] or set(failed.values()) != {_DUPLICATE_KEY}:
                raise
            return [index not in failed for index in range(len(analyses))]
        return [True] * len(analyses)

    async def _find_cached(self, cache_keys: list[str]) -> list[str | None]:
        query = {"cache_key": {"$in": cache_keys}, "status": AnalysisStatus.COMPLETED.value}
        with _noticing_outages():
            cursor = self._analyses.find(query, {"cache_key": 1, "result_json": 1})
            found = {document["cache_key"]: str(document["result_json"]) for document in await cursor.to_list(None)}
        return [found.get(cache_key) for cache_key in cache_keys]


@contextmanager
def _noticing_outages() -> Iterator[None]:
    """Tell a MongoDB that is away, or does not answer in time, from what is wrong with a question."""
    try:
        yield
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure) or error.timeout:
            raise AwayError(f"MongoDB: {type(error).__name__}") from error
        raise


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
