"""The collection of analyses: what the bridge counts on holds in MongoDB as in the stand-in of the unit tests."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from analyzer_bridge import store
from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from analyzer_bridge.bridge import Analyses
from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from contracts.failures import FailureCode
from local_stack.stack import Stack
from tests.support import analyses as in_memory
from tests.support.waiting import until
from tests.unit.stories import REFERENCE

TRACEPARENT = "00-11111111111111111111111111111111-2222222222222222-01"
DONE = Outcome.completed('{"score":1}', by="an event")
FAILED = Outcome.failed(FailureCode.ANALYSIS_TIMED_OUT, by="deadline")
CANCELLED = Outcome(AnalysisStatus.CANCELLED, by="another event")


@pytest.fixture
async def collection(stack: Stack) -> AsyncIterator[Any]:
    """The stack's collection, as MongoDB has it."""
    async with AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"], tz_aware=True) as mongodb:
        yield mongodb.get_default_database()["analyses"]


@pytest.fixture(params=["in memory", "MongoDB"])
async def analyses(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[Analyses]:
    """The stand-in and the real one."""
    if request.param == "in memory":
        yield in_memory.Analyses()
        return
    mongodb = MongoDB(stack.settings["MONGODB_URL"], MESSAGE_LIMITS)
    real = store.AnalysisStore(mongodb)
    await real.prepare()
    yield real
    mongodb.close()


def new(outcome: Outcome | None = None, *, hours: int = 1, cache_key: str | None = None) -> Analysis:
    """An analysis as it is first kept; the stack's own bridge must find it neither overdue nor unannounced."""
    job_id = str(uuid4())
    return Analysis(
        job_id,
        TRACEPARENT,
        token_id="a-token",
        s3_url=f"s3://sori/audio/{job_id}.wav",
        cache_key=cache_key,
        deadline=datetime.now(UTC) + timedelta(hours=hours),
        outcome=outcome,
    )


async def found(analyses: Analyses, job_id: str) -> Analysis:
    analysis = await analyses.find(job_id)
    assert analysis is not None
    return analysis


async def test_a_job_has_one_analysis(analyses: Analyses) -> None:
    first = new()
    assert await analyses.insert(first)
    assert not await analyses.insert(replace(first, token_id="another"))
    assert (await found(analyses, first.job_id)).token_id == "a-token"
    assert await analyses.find(str(uuid4())) is None


@pytest.mark.parametrize("outcome", [DONE, FAILED, CANCELLED, replace(DONE, cached=True)])
async def test_an_outcome_is_kept_as_it_is_and_the_first_one_stays(analyses: Analyses, outcome: Outcome) -> None:
    early, pending = new(outcome), new()
    for analysis in (early, pending):
        await analyses.insert(analysis)
    concluded = await analyses.conclude(pending.job_id, outcome, announced=True)
    assert concluded is not None
    assert concluded.outcome == outcome
    for analysis in (early, pending):
        assert (await found(analyses, analysis.job_id)).outcome == outcome
        assert await analyses.conclude(analysis.job_id, FAILED, announced=True) is None
    assert await analyses.conclude(str(uuid4()), outcome, announced=True) is None


async def test_only_what_nobody_has_changed_meanwhile_is_rescheduled(analyses: Analyses) -> None:
    analysis = new()
    await analyses.insert(analysis)
    assert await analyses.reschedule(analysis, attempt=1, deadline=None)
    assert not await analyses.reschedule(analysis, attempt=7, deadline=None)
    waiting = await found(analyses, analysis.job_id)
    assert (waiting.attempt, waiting.deadline) == (1, None)
    later = datetime.now(UTC) + timedelta(hours=2)
    assert await analyses.reschedule(waiting, attempt=2, deadline=later)
    # MongoDB keeps milliseconds; the very object that was written must match all the same.
    again = replace(waiting, attempt=2, deadline=later)
    assert await analyses.reschedule(again, attempt=3, deadline=later + timedelta(hours=1))
    await analyses.conclude(analysis.job_id, DONE, announced=True)
    ended = await found(analyses, analysis.job_id)
    assert not await analyses.reschedule(ended, attempt=4, deadline=later)


async def test_what_is_overdue_or_not_announced_is_found(analyses: Analyses) -> None:
    pending, waiting, ended, silent, stopped = new(), new(), new(), new(), new()
    for analysis in (pending, waiting, ended, silent, stopped):
        await analyses.insert(analysis)
    await analyses.reschedule(waiting, attempt=1, deadline=None)
    await analyses.conclude(ended.job_id, DONE, announced=True)
    await analyses.conclude(stopped.job_id, CANCELLED, announced=True)
    await analyses.conclude(silent.job_id, FAILED, announced=False)
    late = datetime.now(UTC) + timedelta(hours=2)
    due = {analysis.job_id for analysis in await analyses.overdue(late, 10_000)}
    # The stack's own bridge may have announced it by now, if the collection is the stack's.
    assert due & {one.job_id for one in (pending, waiting, ended, stopped)} == {pending.job_id}
    await analyses.announced(silent.job_id)
    assert silent.job_id not in {analysis.job_id for analysis in await analyses.overdue(late, 10_000)}


async def test_a_result_answers_for_its_key_until_it_is_purged(analyses: Analyses) -> None:
    key = uuid4().hex
    for outcome in (FAILED, CANCELLED):
        await analyses.insert(new(outcome, cache_key=key))
    assert await analyses.cached(key) is None
    done = new(DONE, cache_key=key)
    await analyses.insert(done)
    assert await analyses.cached(key) == DONE.result_json
    await analyses.forget(done.job_id)
    assert await analyses.cached(key) is None


async def test_an_early_outcome_gets_to_know_its_recording(analyses: Analyses) -> None:
    full = new()
    early = Analysis(full.job_id, TRACEPARENT, outcome=DONE)
    await analyses.insert(early)
    await analyses.describe(full)
    known = await found(analyses, full.job_id)
    assert (known.token_id, known.s3_url, known.outcome) == (full.token_id, full.s3_url, DONE)


async def test_what_a_recording_is_compared_with_is_kept_for_as_long_as_its_analysis(analyses: Analyses) -> None:
    asked, early = replace(new(), reference=REFERENCE), Analysis(str(uuid4()), TRACEPARENT, outcome=DONE)
    await analyses.insert(asked)
    await analyses.insert(early)
    await analyses.describe(replace(new(), job_id=early.job_id, reference=REFERENCE))
    for job_id in (asked.job_id, early.job_id):
        assert (await found(analyses, job_id)).reference == REFERENCE
        await analyses.forget(job_id)
        assert (await found(analyses, job_id)).reference is None


async def test_a_purged_job_leaves_only_a_mark_that_nothing_changes(analyses: Analyses) -> None:
    known, unknown = new(), new()
    await analyses.insert(known)
    for analysis in (known, unknown):
        await analyses.forget(analysis.job_id)
        await analyses.forget(analysis.job_id)
        mark = await found(analyses, analysis.job_id)
        assert mark.outcome is not None
        assert mark.outcome.status == AnalysisStatus.PURGED
        assert (mark.token_id, mark.s3_url, mark.cache_key) == (None, None, None)
        assert not await analyses.insert(analysis)
        await analyses.describe(analysis)
        assert not await analyses.reschedule(analysis, attempt=2, deadline=None)
        await analyses.announced(analysis.job_id)
        assert await analyses.conclude(analysis.job_id, DONE, announced=False) is None
        assert await found(analyses, analysis.job_id) == mark


async def test_a_mark_holds_nothing_of_the_job_and_goes_by_itself(stack: Stack, collection: Any) -> None:
    mongodb = MongoDB(stack.settings["MONGODB_URL"], MESSAGE_LIMITS)
    real = store.AnalysisStore(mongodb)
    await real.prepare()
    analysis = new(DONE, cache_key=uuid4().hex)
    await real.insert(analysis)
    await real.forget(analysis.job_id)
    # What was under way when it was purged.
    await real.describe(analysis)
    await real.announced(analysis.job_id)
    mongodb.close()
    mark = await collection.find_one({"_id": analysis.job_id})
    assert mark.keys() == {"_id", "status", "purged_at"}
    index = (await collection.index_information())["purged"]
    assert index["key"] == [("purged_at", 1)]
    assert index["expireAfterSeconds"] == store.MARK_SECONDS == timedelta(days=7).total_seconds()
    # It must cover marks and nothing else: no write of any other analysis may cost more for it.
    assert index["partialFilterExpression"] == {"status": "purged"}


async def test_the_questions_that_are_asked_all_the_time_use_an_index(stack: Stack, collection: Any) -> None:
    async def prepared() -> bool:
        names = set(await collection.index_information())
        return {"cache", "deadlines", "not_announced"} <= names

    await until(prepared, "the indexes")
    questions = [
        {"status": "pending", "deadline": {"$lt": datetime.now(UTC)}},
        {"announced": False},
        {"cache_key": {"$in": ["a", "b"]}, "status": "completed"},
    ]
    for question in questions:
        plan = (await collection.find(question).explain())["queryPlanner"]["winningPlan"]
        assert "IXSCAN" in str(plan), question
