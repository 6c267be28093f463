"""The collection of analyses: what the bridge counts on holds in MongoDB as in the stand-in of the unit tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from pymongo import AsyncMongoClient

from analyzer_bridge import store
from analyzer_bridge.analysis import Analysis, AnalysisStatus, CachedResult, Outcome
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


A, B, C = (f"user:{letter * 32}" for letter in "abc")
BEGAN = datetime(2026, 11, 2, tzinfo=UTC)


async def waits(analyses: Analyses, owner: str | None, *places: int) -> None:
    """Have an owner's analyses wait: `a5` is the name of A's in the fifth place."""
    for place in places:
        name = f"{'-' if owner is None else owner[5]}{place}"
        await analyses.insert(replace(waiting(), job_id=name, owner=owner, created_at=BEGAN + timedelta(seconds=place)))


async def turns(analyses: Analyses, limit: int, after: str | None = None) -> list[str]:
    return [one.job_id for one in await analyses.due(datetime.now(UTC), limit, after)]


async def test_one_owners_come_oldest_first_once_they_are_due(analyses: Analyses) -> None:
    ended = replace(waiting(), owner=A)
    later = replace(waiting(hours=1), owner=A, created_at=BEGAN)
    for analysis in (ended, replace(new(), owner=A), later):
        await analyses.insert(analysis)
    await waits(analyses, A, 3, 1, 2)
    await analyses.conclude(ended.job_id, CANCELLED, announced=True)
    assert await turns(analyses, 10) == ["a1", "a2", "a3"]
    assert await turns(analyses, 2) == ["a1", "a2"]
    in_two_hours = await analyses.due(datetime.now(UTC) + timedelta(hours=2), 10, None)
    assert [one.job_id for one in in_two_hours] == [later.job_id, "a1", "a2", "a3"]
    assert all(one.waiting and one.owner == A for one in in_two_hours)


async def test_one_that_the_server_failed_with_comes_behind_those_that_came_during_its_pause(
    analyses: Analyses,
) -> None:
    await waits(analyses, A, 2, 4)
    failed = replace(waiting(), owner=A, job_id="failed", created_at=BEGAN + timedelta(seconds=1))
    await analyses.insert(failed)
    paused = replace(failed, failures=1, deadline=BEGAN + timedelta(seconds=3))
    assert await analyses.reschedule(failed, paused)
    assert await turns(analyses, 9) == ["a2", "failed", "a4"]
    busy = replace(paused, failures=0, deadline=BEGAN + timedelta(seconds=5))
    assert await analyses.reschedule(paused, busy)
    assert await turns(analyses, 9) == ["failed", "a2", "a4"], "its age counts"


async def test_owners_come_in_turn_and_those_without_one_are_one(analyses: Analyses) -> None:
    await waits(analyses, C, 7)
    await waits(analyses, A, 1, 2, 3, 4)
    await waits(analyses, None, 5, 6)
    await waits(analyses, B, 8, 9)
    assert await turns(analyses, 4) == ["a1", "b8", "c7", "-5"]
    assert await turns(analyses, 9) == ["a1", "b8", "c7", "-5", "a2", "b9", "-6", "a3", "a4"]
    assert await turns(analyses, 2) == ["a1", "b8"]
    assert await turns(analyses, 2, after=A) == ["b8", "c7"]
    assert await turns(analyses, 2, after=B) == ["c7", "-5"]
    assert await turns(analyses, 3, after=C) == ["-5", "a1", "b8"]
    assert await turns(analyses, 5, after=B) == ["c7", "-5", "a1", "b8", "-6"]
    assert await turns(analyses, 1, after="user:aaaab") == ["b8"], "one who has nothing there any more"


@pytest.mark.parametrize("limit", range(1, 12))
async def test_as_many_come_as_there_are_and_as_are_wanted(analyses: Analyses, limit: int) -> None:
    await waits(analyses, A, 1)
    await waits(analyses, None, *range(2, 8))
    await waits(analyses, B, 8, 9)
    for after in (None, A, B, C):
        found = await turns(analyses, limit, after)
        assert len(set(found)) == len(found) == min(limit, 9)


async def test_analyses_of_earlier_versions_have_no_owner_and_wait_with_those_without(url: str) -> None:
    async with opened(url) as real:
        await waits(real, None, 1, 2)
        async with AsyncMongoClient[dict[str, Any]](url) as mongodb:
            earlier = {"$unset": {"owner": "", "place": ""}}
            await mongodb.get_default_database()["analyses"].update_one({"_id": "-1"}, earlier)
        await waits(real, A, 3)
        assert await turns(real, 10) == ["a3", "-1", "-2"]
        assert await real.count_waiting(10) == 3


async def test_how_much_is_read_does_not_depend_on_how_much_waits(url: str) -> None:
    """10,000 of one owner's, of which some rest, and 10,000 owners; and 10,000 with which the server fails."""
    limit = 9
    async with opened(url) as real, AsyncMongoClient[dict[str, Any]](url) as mongodb:
        collection = mongodb.get_default_database()["analyses"]
        for name, owners in (("one", [A] * 10_000), ("many", [f"user:{number:032x}" for number in range(10_000)])):
            await collection.delete_many({})
            kept = replace(waiting(), owner=B)
            await real.insert(kept)
            template = await collection.find_one_and_delete({"_id": kept.job_id})
            assert template is not None
            ages = (BEGAN + timedelta(seconds=number) for number in range(10_000))
            await collection.insert_many(
                template | {"_id": f"{name}{number}", "owner": owner, "created_at": age, "place": age}
                for number, (owner, age) in enumerate(zip(owners, ages, strict=True))
            )
            # The server was busy, or was told of them a moment ago.
            resting = [f"{name}{number}" for number in range(0, 10_000, 500)]
            later = datetime.now(UTC) + timedelta(hours=1)
            await collection.update_many({"_id": {"$in": resting}}, {"$set": {"deadline": later}})
            # It fails with all these.
            failing = (
                template | {"_id": f"failing{number}", "owner": C, "deadline": later, "place": later, "failures": 9}
                for number in range(10_000)
            )
            await collection.insert_many(failing)
            async with profiled(url) as entries:
                for after in (None, owners[5000], B, C):
                    assert len(await real.due(datetime.now(UTC), limit, after)) == limit
                await real.cached("a")
            asked = [entry for entry in entries if entry["op"] == "query"]
            assert len(asked) <= 4 * (limit + 3) + 1
            for entry in asked:
                assert entry["planSummary"].startswith("IXSCAN"), entry["command"]
                assert "hasSortStage" not in entry, entry["command"]
                assert entry["docsExamined"] <= limit, entry["command"]
                assert entry["keysExamined"] <= limit + 2 * len(resting), entry["command"]


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
    done = replace(new(DONE, cache_key=key), owner=A)
    await analyses.insert(done)
    assert await analyses.cached(key) == CachedResult(done.job_id, A, '{"score":1}')
    await analyses.forget(done.job_id)
    assert await analyses.cached(key) is None


async def test_an_owners_own_result_is_found_among_others(analyses: Analyses) -> None:
    key = uuid4().hex
    for owner in (A, None, B):
        await analyses.insert(replace(new(DONE, cache_key=key), owner=owner))
    for owner in (A, None, B):
        found = await analyses.cached_of(key, owner)
        assert found is not None
        assert found.owner == owner
    assert await analyses.cached_of(key, C) is None
    assert await analyses.cached_of(uuid4().hex, A) is None


async def test_one_key_with_many_results_hides_no_other_that_is_asked_for_with_it(analyses: Analyses) -> None:
    many, one, none = uuid4().hex, uuid4().hex, uuid4().hex
    for key in (*[many] * 20, one):
        await analyses.insert(new(DONE, cache_key=key))
    found = await asyncio.gather(*(analyses.cached(key) for key in (none, many, one, many, none)))
    assert [result is not None for result in found] == [False, True, True, True, False]


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


async def test_the_indexes_of_earlier_versions_go(url: str) -> None:
    async with AsyncMongoClient[dict[str, Any]](url) as mongodb:
        collection = mongodb.get_default_database()["analyses"]
        for name, field in (("cache", "cache_key"), ("waiting", "created_at")):
            await collection.create_index(field, name=name)
        for _ in range(2):
            async with opened(url):
                names = set(await collection.index_information())
        assert names == {"_id_", "results", "deadlines", "turns", "not_announced", "purged"}


async def test_the_questions_that_are_asked_all_the_time_use_an_index(url: str) -> None:
    now = datetime.now(UTC)
    async with opened(url) as real:
        for analysis in (new(), waiting(), new(DONE, cache_key="a")):
            await real.insert(analysis)
        async with profiled(url) as entries:
            await real.unannounced(10)
            await real.overdue(now, 10)
            await real.due(now, 10, A)
            await real.cached("a")
            await real.cached_of("a", None)
            assert await real.count_asked(10) == 1
            assert await real.count_waiting(10) == 1
    plans = [entry for entry in entries if "planSummary" in entry]
    assert len(plans) == 9
    for entry in plans:
        assert entry["planSummary"].startswith("IXSCAN"), entry["command"]
        assert "hasSortStage" not in entry, entry["command"]
