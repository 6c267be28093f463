"""The gateway's MongoDB: indexes serve every list, a duplicate spares the others, leases run by the server's clock."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from contracts.job import Job, Status
from gateway import store
from gateway.listing import Place, Wanted
from gateway.store import Claims, Jobs, connected
from gateway.submissions import Recording
from local_stack.stack import Stack
from tests.support.databases import own_database
from tests.support.events import Story
from tests.support.waiting import until

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own on the stack's server."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture
async def client(address: str) -> AsyncIterator[Any]:
    """The gateway's own client of it."""
    opened = connected(address)
    yield opened
    opened.close()


@pytest.fixture
async def jobs(client: Any) -> Jobs:
    """The jobs, with their indexes."""
    jobs = Jobs(client)
    await jobs.prepare()
    return jobs


@pytest.fixture
def claims(client: Any) -> Claims:
    """The idempotency keys."""
    return Claims(client)


def job(job_id: str | None = None, token_id: str = "a-token", at: datetime = MOMENT) -> Job:
    event = Story(job_id or str(uuid.uuid4()), token_id).upload_received().model_copy(update={"time": at})
    return Job.received(event, "a.wav")


def indexes(plan: Any) -> set[str]:
    """The names of all indexes that a plan reads; every stage that reads documents without one is named too."""
    if isinstance(plan, list):
        return {name for part in plan for name in indexes(part)}
    if not isinstance(plan, dict):
        return set()
    own = {plan["indexName"]} if "indexName" in plan else set()
    if plan.get("stage") in {"COLLSCAN", "SORT"}:
        own.add(plan["stage"])
    return own | {name for part in plan.values() for name in indexes(part)}


PLACE = Place(MOMENT + timedelta(milliseconds=100), str(uuid.uuid4()))
QUESTIONS = [
    (Wanted(), None, {"status"}),
    (Wanted(), PLACE, {"status"}),
    (Wanted(created_after=MOMENT, created_before=MOMENT + timedelta(days=1)), PLACE, {"status"}),
    (Wanted(status=Status.FAILED), None, {"status"}),
    (Wanted(status=Status.PROCESSING, created_before=MOMENT), PLACE, {"status"}),
    (Wanted(token_id="token-1"), None, {"token"}),
    (Wanted(token_id="token-1", status=Status.PROCESSING, created_after=MOMENT), PLACE, {"token"}),
]


@pytest.mark.parametrize(("wanted", "after", "used"), QUESTIONS)
async def test_every_list_is_read_from_an_index_in_its_order(
    jobs: Jobs, address: str, wanted: Wanted, after: Place | None, used: set[str]
) -> None:
    await asyncio.gather(*(jobs.insert(job(token_id=f"token-{n % 50}", at=at(n))) for n in range(500)))
    async with AsyncMongoClient[dict[str, Any]](address) as mongodb:
        question = mongodb.get_default_database()["jobs"].find(store._query(wanted, after)).sort(store._NEWEST)
        explained = await question.limit(20).explain()
    assert indexes(explained["queryPlanner"]["winningPlan"]) == used
    assert explained["executionStats"]["totalDocsExamined"] <= 40


async def test_the_other_questions_are_read_from_indexes_too(jobs: Jobs, client: Any) -> None:
    await asyncio.gather(*(jobs.insert(job(at=at(n))) for n in range(300)))
    waiting = job(at=at(200))
    profiled = client.get_default_database()
    await profiled.command("profile", 2)
    await jobs.ahead(waiting)
    await jobs.ended_before(MOMENT + timedelta(days=9), ["x"], 100)
    await jobs.unpublished(timedelta(0), [], 100)
    await profiled.command("profile", 0)
    summaries = [
        entry["planSummary"]
        async for entry in profiled["system.profile"].find(
            {"ns": {"$regex": r"\.jobs$"}, "planSummary": {"$exists": 1}}
        )
    ]
    assert len(summaries) == 3
    assert all(summary.startswith(("IXSCAN", "COUNT_SCAN")) for summary in summaries), summaries


def at(number: int) -> datetime:
    """A moment, some of which several jobs share."""
    return MOMENT + timedelta(milliseconds=number // 3)


async def test_how_many_are_ahead_counts_those_that_came_before_and_are_not_done(jobs: Jobs) -> None:
    made = [job(at=MOMENT + timedelta(seconds=number)) for number in range(4)]
    for one in made:
        await jobs.insert(one)
    assert [await jobs.ahead(one) for one in made] == [0, 1, 2, 3]


async def test_ended_jobs_are_found_by_age_the_oldest_first(jobs: Jobs, client: Any) -> None:
    made = [job(at=MOMENT + timedelta(seconds=number)) for number in range(6)]
    for one in made:
        await jobs.insert(one)
    ended = {"$set": {"view.status": "cancelled"}}
    await client.get_default_database()["jobs"].update_many({"_id": {"$ne": made[1].job_id}}, ended)
    found = await jobs.ended_before(MOMENT + timedelta(seconds=5), [made[0].job_id], 2)
    assert [one.job_id for one in found] == [made[2].job_id, made[3].job_id]


async def test_one_job_that_exists_says_nothing_against_the_others_of_its_batch(jobs: Jobs) -> None:
    twice = job()
    assert await jobs.insert(twice)
    batch = [job(), twice, job(), twice, job()]
    assert await asyncio.gather(*(jobs.insert(one) for one in batch)) == [True, False, True, False, True]
    for one in batch:
        assert await jobs.recording(one.job_id) == Recording(one.token_id, one.sha256)
    assert await jobs.recording(str(uuid.uuid4())) is None


async def test_of_many_claims_at_once_one_is_the_owner_and_all_see_its_job(claims: Claims) -> None:
    stands = await asyncio.gather(*(claims.claim("key", f"owner-{n}", f"job-{n}") for n in range(20)))
    assert len({(claim.owner, claim.job_id) for claim in stands}) == 1
    assert all(claim.recording is None for claim in stands)


async def test_a_freed_key_goes_to_the_next_with_the_first_ones_job(claims: Claims) -> None:
    await claims.claim("key", "first", "job-1")
    await claims.free("key", "somebody else")
    assert (await claims.claim("key", "second", "job-2")).owner == "first"
    await claims.free("key", "first")
    claim = await claims.claim("key", "second", "job-2")
    assert (claim.owner, claim.job_id) == ("second", "job-1")
    await claims.free("key", "first")  # too late: it is somebody else's now
    assert (await claims.claim("key", "third", "job-3")).owner == "second"


async def test_a_lease_ends_by_itself_unless_it_is_renewed(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_LEASE", {"$add": ["$$NOW", 300]})
    await claims.claim("key", "first", "job-1")
    await claims.claim("other", "first", "job-9")

    async def taken_over() -> bool:
        await claims.renew("other", "first")
        return (await claims.claim("key", "second", "job-2")).owner == "second"

    await until(taken_over, "the end of the lease")
    assert (await claims.claim("other", "second", "job-2")).owner == "first"


async def test_a_settled_key_stays_so_and_is_kept_for_a_day(claims: Claims, client: Any) -> None:
    await claims.claim("key", "first", "job-1")
    recording = Recording("$token", "00" * 32)
    await claims.settle("key", recording)
    await claims.renew("key", "first")
    claim = await claims.claim("key", "second", "job-2")
    assert (claim.owner, claim.job_id, claim.recording) == ("first", "job-1", recording)
    kept = (await client.get_default_database()["idempotency_keys"].index_information())["kept"]
    assert kept["expireAfterSeconds"] == 24 * 3600
    document = await client.get_default_database()["idempotency_keys"].find_one({"_id": "key"})
    assert isinstance(document["created_at"], datetime)
