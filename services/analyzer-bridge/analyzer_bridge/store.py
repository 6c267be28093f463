"""MongoDB: the `analyses` collection, each change of it one conditional update."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, groupby, zip_longest
from typing import Any

from bson import MinKey
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import OperationFailure

from analyzer_bridge.analysis import Analysis, AnalysisStatus, CachedResult, Outcome
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
_COMPLETED = AnalysisStatus.COMPLETED.value
_INDEXES: tuple[tuple[str, tuple[str, ...], dict[str, Any], dict[str, Any]], ...] = (
    ("results", ("cache_key", "owner"), {"status": _COMPLETED}, {}),
    ("deadlines", ("deadline",), {"status": _PENDING}, {}),
    ("turns", ("owner", "place", "deadline"), {"status": _WAITING}, {}),
    ("not_announced", ("announced",), {"announced": False}, {}),
    ("purged", ("purged_at",), {"status": _PURGED}, {"expireAfterSeconds": MARK_SECONDS}),
)
"""Each index: its name, its fields, the documents that it covers, and further options."""
_RETIRED_INDEXES = ("cache", "waiting")
"""What earlier versions asked by; each would cost every analysis a write."""
_NOT_THERE = (26, 27)
"""MongoDB's codes for a collection and an index that it does not have."""
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
"""Earlier than any date here: asking for later ones has a count read the index alone."""
_OF_A_RESULT = {"cache_key": 1, "owner": 1, "result_json": 1}
_DESCRIPTION = ("traceparent", "token_id", "metadata_json", "owner", "s3_url", "cache_key", "reference_json")


class AnalysisStore:
    """The collection; what ends in `_json` is text, since BSON cannot hold every JSON object."""

    def __init__(self, mongodb: MongoDB) -> None:
        self._analyses = mongodb.collection("analyses")
        self._inserts = Batches(self._insert_all)
        self._caches = Batches(self._find_cached)

    async def prepare(self) -> None:
        """Create the indexes for the queries of the cache, of the deadlines and of what waits; remove earlier ones."""
        with translating():
            for name, fields, which, options in _INDEXES:
                await self._analyses.create_index(
                    [(field, ASCENDING) for field in fields], name=name, partialFilterExpression=which, **options
                )
            for name in _RETIRED_INDEXES:
                await self._drop_index(name)

    async def insert(self, analysis: Analysis) -> bool:
        """Store a new analysis; False when the job already has one."""
        return await self._inserts.answer(analysis)

    async def find(self, job_id: str) -> Analysis | None:
        """Return the job's analysis; None when there is none."""
        with translating():
            found = await self._analyses.find_one({"_id": job_id})
        return None if found is None else _analysis(found)

    async def cached(self, cache_key: str) -> CachedResult | None:
        """Return the result of an earlier analysis under this key, whoever its owner is; None when there is none."""
        return await self._caches.answer(cache_key)

    async def cached_of(self, cache_key: str, owner: str | None) -> CachedResult | None:
        """Return the result of an earlier analysis of this owner's under this key; None when there is none."""
        query = {"cache_key": cache_key, "status": _COMPLETED, "owner": owner}
        with translating():
            found = await self._analyses.find_one(query, _OF_A_RESULT)
        return None if found is None else _cached(found)

    async def describe(self, analysis: Analysis) -> None:
        """Add the recording's data to an analysis whose webhook came first; leave one that was purged as it is."""
        fields = {name: _document(analysis)[name] for name in _DESCRIPTION}
        with translating():
            await self._analyses.update_one({"_id": analysis.job_id, "status": {"$ne": _PURGED}}, {"$set": fields})

    async def reschedule(self, analysis: Analysis, later: Analysis) -> bool:
        """Write whether it waits, the attempt, the deadline and the failures of `later`, if it is still as `analysis`.

        False when the analysis has ended, or its status or deadline is another.
        """
        expected = {"status": analysis.status.value, "deadline": analysis.deadline}
        with translating():
            changed = await self._analyses.update_one({"_id": analysis.job_id, **expected}, {"$set": _schedule(later)})
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

    async def due(self, now: datetime, limit: int, after: str | None) -> list[Analysis]:
        """Return analyses that wait and are to be asked for: one of each owner in turn, then the next one of each.

        The owner who follows `after` comes first; an owner's own come by their places. However many wait, it takes at
        most `limit` + 3 queries, each for few documents that lie side by side in the index.
        """
        queues: list[list[dict[str, Any]]] = []
        for owners in _in_turn(after):
            while len(queues) < limit:
                # Together they fill `limit`, and each has its share of it.
                few = max(limit - sum(map(len, queues)), math.ceil(limit / (len(queues) + 1)))
                found = await self._due_of(owners, now, few)
                queues += [list(queue) for _, queue in groupby(found, _owner_of)]
                if owners is None or len(found) < few:
                    break
                owners = {**owners, "$gt": _owner_of(found[-1])}  # noqa: PLW2901 - what is left of them
        in_turn = chain.from_iterable(zip_longest(*queues))
        return [_analysis(document) for document in in_turn if document is not None][:limit]

    async def count_asked(self, limit: int) -> int:
        """Return how many analyses were asked for and have not ended; `limit` if there are more."""
        return await self._count({"status": _PENDING, "deadline": {"$gt": _LONG_AGO}}, limit)

    async def count_waiting(self, limit: int) -> int:
        """Return how many analyses wait; `limit` if there are more."""
        # Of any owner, and of none: the index begins with it.
        return await self._count({"status": _WAITING, "owner": {"$gte": MinKey()}}, limit)

    async def announced(self, job_id: str) -> None:
        """Note that the outcome was published."""
        with translating():
            await self._analyses.update_one({"_id": job_id, "announced": False}, {"$set": {"announced": True}})

    async def forget(self, job_id: str) -> None:
        """Replace the job's analysis, if any, by a mark that it was purged; the mark expires after MARK_SECONDS."""
        mark = {"status": _PURGED, "purged_at": datetime.now(UTC)}
        with translating():
            await self._analyses.replace_one({"_id": job_id}, mark, upsert=True)

    async def _due_of(self, owners: Any, now: datetime, limit: int) -> list[dict[str, Any]]:
        """Return what is due of one owner after the other, by place; earlier versions gave none, so it is not later."""
        waiting = {"status": _WAITING, "owner": owners, "place": {"$not": {"$gt": now}}, "deadline": {"$lte": now}}
        with translating():
            found = self._analyses.find(waiting).sort([("owner", ASCENDING), ("place", ASCENDING)])
            documents: list[dict[str, Any]] = await found.limit(limit).to_list(limit)
        return documents

    async def _drop_index(self, name: str) -> None:
        try:
            await self._analyses.drop_index(name)
        except OperationFailure as error:
            if error.code not in _NOT_THERE:
                raise

    async def _count(self, which: dict[str, Any], limit: int) -> int:
        with translating():
            return int(await self._analyses.count_documents(which, limit=limit))

    async def _insert_all(self, analyses: list[Analysis]) -> list[bool]:
        return await insert_new(self._analyses, [_document(analysis) for analysis in analyses])

    async def _find_cached(self, cache_keys: list[str]) -> list[CachedResult | None]:
        """Return a result for each key, if there is one; however many a key has, few are read."""
        keys = list(set(cache_keys))
        found = await self._results(keys)
        results = {document["cache_key"]: document for document in found}
        if len(found) == len(keys):
            # One key's many results may have left no place for another's.
            for key in set(keys) - results.keys():
                results |= {document["cache_key"]: document for document in await self._results([key])}
        return [_cached(results[key]) if key in results else None for key in cache_keys]

    async def _results(self, cache_keys: list[str]) -> list[dict[str, Any]]:
        query, few = {"cache_key": {"$in": cache_keys}, "status": _COMPLETED}, len(cache_keys)
        with translating():
            found: list[dict[str, Any]] = await self._analyses.find(query, _OF_A_RESULT).limit(few).to_list(few)
        return found


def _in_turn(after: str | None) -> Iterator[Any]:
    """Yield which owners are asked for, one query after the other: who follows `after`, those without one, the rest.

    Those without one are asked for by themselves: to MongoDB, nothing is less than a text but another text.
    """
    yield {"$gt": after or ""}
    yield None
    if after is not None:
        yield {"$gt": "", "$lte": after}


def _owner_of(document: dict[str, Any]) -> str | None:
    owner: str | None = document.get("owner")
    return owner


def _cached(document: dict[str, Any]) -> CachedResult:
    return CachedResult(document["_id"], _owner_of(document), str(document["result_json"]))


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
        "place": analysis.place,
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
        owner=_owner_of(document),
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
