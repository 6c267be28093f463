"""The collection of analyses: what the bridge counts on holds in MongoDB as in the stand-in of the unit tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from tests.support.databases import own_database, profiled
from tests.unit.stories import REFERENCE

TRACEPARENT = "00-11111111111111111111111111111111-2222222222222222-01"
DONE = Outcome.completed('{"score":1}', by="an event")
FAILED = Outcome.failed(FailureCode.ANALYSIS_TIMED_OUT, by="deadline")
CANCELLED = Outcome(AnalysisStatus.CANCELLED, by="another event")


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A database of the test's own: the stack's bridges would act on what they find in theirs."""
    async with own_database(stack) as address:
        yield address


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[store.AnalysisStore]:
    """The real collection, with its indexes."""
    mongodb = MongoDB(url, MESSAGE_LIMITS)
    real = store.AnalysisStore(mongodb)
    await real.prepare()
    yield real
    mongodb.close()


@pytest.fixture(params=["in memory", "MongoDB"])
async def analyses(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Analyses]:
    """The stand-in and the real one."""
    if request.param == "in memory":
        yield in_memory.Analyses()
        return
    async with opened(url) as real:
        yield real


def new(outcome: Outcome | None = None, *, hours: int = 1, cache_key: str | None = None) -> Analysis:
    """An analysis as it is first kept when it is asked for at once."""
    job_id = str(uuid4())
    return Analysis(
        job_id,
        TRACEPARENT,
        token_id="a-token",
        metadata={"a.b": {"$set": 2**70}},
        s3_url=f"s3://sori/audio/{job_id}.wav",
        cache_key=cache_key,
        deadline=datetime.now(UTC) + timedelta(hours=hours),
        outcome=outcome,
    )


def waiting(*, hours: int = 0) -> Analysis:
    """An analysis that waits, and is due in so many hours."""
    return replace(new(hours=hours), waiting=True)


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
    early, *unended = new(outcome), new(), waiting()
    for analysis in (early, *unended):
        await analyses.insert(analysis)
    for analysis in unended:
        concluded = await analyses.conclude(analysis.job_id, outcome, announced=True)
        assert concluded is not None
        assert concluded.outcome == outcome
        assert concluded.waiting == analysis.waiting, "it tells whether it had been asked for"
    for analysis in (early, *unended):
        known = await found(analyses, analysis.job_id)
        assert (known.outcome, known.status) == (outcome, outcome.status)
        assert await analyses.conclude(analysis.job_id, FAILED, announced=True) is None
    assert await analyses.conclude(str(uuid4()), outcome, announced=True) is None


async def test_only_what_nobody_has_changed_meanwhile_is_rescheduled(analyses: Analyses) -> None:
    first = new()
    await analyses.insert(first)
    later = datetime.now(UTC) + timedelta(hours=2)
    waits = replace(first, waiting=True, attempt=2, deadline=later, failures=3)
    assert await analyses.reschedule(first, waits)
    assert not await analyses.reschedule(first, replace(first, attempt=7)), "it waits now"
    known = await found(analyses, first.job_id)
    assert (known.status, known.attempt, known.failures) == (AnalysisStatus.WAITING, 2, 3)
    # MongoDB keeps milliseconds; the very object that was written must match all the same.
    leased = replace(waits, deadline=later + timedelta(hours=1))
    assert await analyses.reschedule(waits, leased)
    assert not await analyses.reschedule(waits, replace(waits, attempt=7)), "its deadline is another now"
    asked = replace(leased, waiting=False, failures=0)
    assert await analyses.reschedule(leased, asked)
    assert (await found(analyses, first.job_id)).status == AnalysisStatus.PENDING
    for was in (asked, leased):
        await analyses.conclude(first.job_id, DONE, announced=True)
        assert not await analyses.reschedule(was, replace(was, attempt=7)), "it has ended"
    assert (await found(analyses, first.job_id)).status == AnalysisStatus.COMPLETED


async def test_one_without_a_deadline_is_given_one_once(analyses: Analyses) -> None:
    """Earlier versions took the deadline away while a message waited in the broker."""
    legacy = replace(new(), deadline=None)
    await analyses.insert(legacy)
    asked = replace(legacy, deadline=datetime.now(UTC) + timedelta(hours=1))
    assert await analyses.count_asked(10) == 0
    assert await analyses.reschedule(legacy, asked)
    assert not await analyses.reschedule(legacy, asked)
    assert await analyses.count_asked(10) == 1


def ids(some: list[Analysis]) -> set[str]:
    return {analysis.job_id for analysis in some}


async def test_what_is_overdue_or_not_announced_is_found(analyses: Analyses) -> None:
    pending, waits, ended, silent, stopped = new(), waiting(), new(), new(), new()
    for analysis in (pending, waits, ended, silent, stopped, replace(new(), deadline=None)):
        await analyses.insert(analysis)
    await analyses.conclude(ended.job_id, DONE, announced=True)
    await analyses.conclude(stopped.job_id, CANCELLED, announced=True)
    await analyses.conclude(silent.job_id, FAILED, announced=False)
    assert await analyses.overdue(datetime.now(UTC), 10) == []
    assert ids(await analyses.overdue(datetime.now(UTC) + timedelta(hours=2), 10)) == {pending.job_id}
    assert ids(await analyses.unannounced(10)) == {silent.job_id}
    await analyses.announced(silent.job_id)
    assert await analyses.unannounced(10) == []


async def test_what_waits_and_is_due_comes_oldest_first(analyses: Analyses) -> None:
    began = datetime(2026, 11, 2, tzinfo=UTC)
    first, second, third = (replace(waiting(), created_at=began + timedelta(seconds=age)) for age in range(3))
    ended, later = waiting(), replace(waiting(hours=1), created_at=began - timedelta(seconds=1))
    for analysis in (third, ended, first, new(), later, second):
        await analyses.insert(analysis)
    await analyses.conclude(ended.job_id, CANCELLED, announced=True)
    now = datetime.now(UTC)
    assert [one.job_id for one in await analyses.due(now, 10)] == [first.job_id, second.job_id, third.job_id]
    assert [one.job_id for one in await analyses.due(now, 2)] == [first.job_id, second.job_id]
    assert [one.job_id for one in await analyses.due(now + timedelta(hours=2), 1)] == [later.job_id]
    assert (await analyses.due(now, 1))[0].waiting


async def test_what_was_asked_for_and_what_waits_is_counted_as_far_as_told(analyses: Analyses) -> None:
    for analysis in (*[new() for _ in range(3)], new(DONE), new(hours=-1), waiting(), waiting(hours=1)):
        await analyses.insert(analysis)
    purged = new()
    await analyses.insert(purged)
    await analyses.forget(purged.job_id)
    assert [await analyses.count_asked(limit) for limit in (2, 10)] == [2, 4]
    assert [await analyses.count_waiting(limit) for limit in (1, 10)] == [1, 2]


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
    assert known.metadata == full.metadata


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
        assert not await analyses.reschedule(analysis, replace(analysis, attempt=2))
        await analyses.announced(analysis.job_id)
        assert await analyses.conclude(analysis.job_id, DONE, announced=False) is None
        assert await found(analyses, analysis.job_id) == mark


async def test_a_mark_holds_nothing_of_the_job_and_goes_by_itself(url: str) -> None:
    analysis = new(DONE, cache_key=uuid4().hex)
    async with opened(url) as real:
        await real.insert(analysis)
        await real.forget(analysis.job_id)
        # What was under way when it was purged.
        await real.describe(analysis)
        await real.announced(analysis.job_id)
    async with AsyncMongoClient[dict[str, Any]](url) as mongodb:
        collection = mongodb.get_default_database()["analyses"]
        mark = await collection.find_one({"_id": analysis.job_id})
        index = (await collection.index_information())["purged"]
    assert mark is not None
    assert mark.keys() == {"_id", "status", "purged_at"}
    assert index["key"] == [("purged_at", 1)]
    assert index["expireAfterSeconds"] == store.MARK_SECONDS == timedelta(days=7).total_seconds()
    # It must cover marks and nothing else: no write of any other analysis may cost more for it.
    assert index["partialFilterExpression"] == {"status": "purged"}


async def test_the_questions_that_are_asked_all_the_time_use_an_index(url: str) -> None:
    now = datetime.now(UTC)
    async with opened(url) as real:
        for analysis in (new(), waiting(), new(DONE, cache_key="a")):
            await real.insert(analysis)
        async with profiled(url) as entries:
            await real.unannounced(10)
            await real.overdue(now, 10)
            await real.due(now, 10)
            await real.cached("a")
            assert await real.count_asked(10) == 1
            assert await real.count_waiting(10) == 1
    plans = [entry for entry in entries if "planSummary" in entry]
    assert len(plans) == 6
    for entry in plans:
        assert entry["planSummary"].startswith("IXSCAN"), entry["command"]
        assert "hasSortStage" not in entry, entry["command"]
