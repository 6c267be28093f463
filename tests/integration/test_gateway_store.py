"""The gateway's jobs and claims: what its cores count on holds in MongoDB as in the stand-ins of the unit tests.

Of MongoDB alone: indexes serve every list, and leases run by the server's clock.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.events import AudioInfo, JsonObject
from contracts.job import Job, Status
from gateway.audio import Recording
from gateway.jobs.documents import Jobs
from gateway.jobs.listing import Cursor, JobFilter, MetadataAsked
from gateway.jobs.removals import Ending
from gateway.jobs.store import JobStore
from gateway.redrive.store import RedriveStore
from gateway.uploads import claims as claiming
from gateway.uploads.claims import ClaimStore
from gateway.uploads.idempotency import Claims
from local_stack.stack import Stack
from tests.support import gateway_stores as in_memory
from tests.support.databases import own_database, profiled
from tests.support.events import Story
from tests.support.waiting import until

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own on the stack's server."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture
async def mongodb(address: str) -> AsyncIterator[MongoDB]:
    """The gateway's own client of it."""
    opened = MongoDB(address, REQUEST_LIMITS)
    yield opened
    opened.close()


@pytest.fixture
async def real_jobs(mongodb: MongoDB) -> JobStore:
    """The jobs in MongoDB, with their indexes."""
    await RedriveStore(mongodb).prepare()
    return JobStore(mongodb)


@pytest.fixture
def real_claims(mongodb: MongoDB) -> ClaimStore:
    """The claims in MongoDB."""
    return ClaimStore(mongodb)


@pytest.fixture(params=["in memory", "MongoDB"])
def jobs(request: pytest.FixtureRequest, real_jobs: JobStore) -> Jobs:
    """The stand-in and the real one."""
    return in_memory.Jobs() if request.param == "in memory" else real_jobs


@pytest.fixture(params=["in memory", "MongoDB"])
def claims(request: pytest.FixtureRequest, real_claims: ClaimStore) -> Claims:
    """The stand-in and the real one."""
    return in_memory.Claims() if request.param == "in memory" else real_claims


def job(
    job_id: str | None = None,
    token_id: str = "a-token",
    at: datetime = MOMENT,
    status: Status = Status.PROCESSING,
    metadata: JsonObject | None = None,
) -> Job:
    event = Story(job_id or str(uuid.uuid4()), token_id).upload_received()
    event = event.model_copy(update={"time": at, "data": event.data.model_copy(update={"metadata": metadata})})
    made = Job.received(event, "a.wav")
    return made.model_copy(update={"view": made.view.model_copy(update={"status": status})})


async def kept(jobs: Jobs, *new: Job) -> list[str]:
    """Insert these; return their ids."""
    for one in new:
        assert await jobs.insert(one)
    return [one.job_id for one in new]


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


CURSOR = Cursor(MOMENT + timedelta(milliseconds=100), str(uuid.UUID(int=2**127)))
LISTS = [
    (JobFilter(), None, {"status"}),
    (JobFilter(), CURSOR, {"status"}),
    (JobFilter(created_after=MOMENT, created_before=MOMENT + timedelta(days=1)), CURSOR, {"status"}),
    (JobFilter(status=Status.FAILED), None, {"status"}),
    (JobFilter(status=Status.PROCESSING, created_before=MOMENT), CURSOR, {"status"}),
    (JobFilter(token_id="token-1"), None, {"token"}),
    (JobFilter(token_id="token-1", status=Status.PROCESSING, created_after=MOMENT), CURSOR, {"token"}),
]


@pytest.mark.parametrize(("job_filter", "after", "used"), LISTS)
async def test_every_list_is_read_from_an_index_in_its_order(
    real_jobs: JobStore, address: str, job_filter: JobFilter, after: Cursor | None, used: set[str]
) -> None:
    await asyncio.gather(*(real_jobs.insert(job(token_id=f"token-{n % 50}", at=at(n))) for n in range(500)))
    async with profiled(address) as entries:
        await real_jobs.page(job_filter, after, 20)
    (entry,) = [one for one in entries if one["ns"].endswith(".jobs")]
    assert indexes(entry["execStats"]) == used
    assert entry["docsExamined"] <= 40


@pytest.mark.parametrize(("job_filter", "after", "_"), [one for one in LISTS if one[0].token_id is None])
async def test_an_owners_list_reads_no_more_however_many_jobs_others_have(
    real_jobs: JobStore, address: str, job_filter: JobFilter, after: Cursor | None, _: set[str]
) -> None:
    owner, other = "user:" + "a" * 32, "user:" + "b" * 32
    statuses = (Status.PROCESSING, Status.FAILED)
    made = [job(at=at(n), status=statuses[n // 50 % 2]) for n in range(500)]
    owned = [one.model_copy(update={"owner": other if n % 50 else owner}) for n, one in enumerate(made)]
    await asyncio.gather(*(real_jobs.insert(one) for one in owned))
    async with profiled(address) as entries:
        found = await real_jobs.page(job_filter, after, 20, (), owner)
    assert all(one.owner == owner for one in found)
    (entry,) = [one for one in entries if one["ns"].endswith(".jobs")]
    assert not {"COLLSCAN", "SORT"} & indexes(entry["execStats"])
    assert entry["docsExamined"] <= 10


@pytest.mark.parametrize(("job_filter", "after", "_"), LISTS)
async def test_every_list_has_the_jobs_that_match_it_the_newest_first(
    jobs: Jobs, job_filter: JobFilter, after: Cursor | None, _: set[str]
) -> None:
    statuses = (Status.PROCESSING, Status.FAILED)
    made = [job(token_id=f"token-{n % 3}", at=at(n * 50), status=statuses[n % 2]) for n in range(24)]
    await kept(jobs, *made)
    newest = sorted(made, key=lambda one: (one.created_at, one.job_id), reverse=True)
    matching = [
        one.job_id
        for one in newest
        if job_filter.status in {None, one.view.status}
        and job_filter.token_id in {None, one.token_id}
        and (job_filter.created_after is None or one.created_at >= job_filter.created_after)
        and (job_filter.created_before is None or one.created_at < job_filter.created_before)
        and (after is None or (one.created_at, one.job_id) < (after.created_at, after.job_id))
    ]
    for limit in (3, 100):
        found = await jobs.page(job_filter, after, limit)
        assert [one.job_id for one in found] == matching[:limit]


def retry(of: str, number: int) -> Job:
    return job().model_copy(update={"recording_of": of, "retry_number": number})


async def test_each_number_of_a_recordings_retries_is_there_once(jobs: Jobs) -> None:
    first, other = await kept(jobs, job(), job())
    await kept(jobs, retry(first, 1), retry(first, 3), retry(other, 1))
    assert not await jobs.insert(retry(first, 3))
    assert await jobs.retry_numbers(first) == {1, 3}
    assert sorted(await asyncio.gather(*(jobs.insert(retry(first, 2)) for _ in range(8)))) == [False] * 7 + [True]
    assert await jobs.retry_numbers(first) == {1, 2, 3}
    assert await jobs.retry_numbers(str(uuid.uuid4())) == set()


async def test_a_recordings_retries_are_read_from_an_index(real_jobs: JobStore, address: str) -> None:
    first = str(uuid.uuid4())
    await kept(real_jobs, *(job() for _ in range(50)), *(retry(first, number) for number in range(1, 4)))
    async with profiled(address) as entries:
        await real_jobs.retry_numbers(first)
    (entry,) = [one for one in entries if one["ns"].endswith(".jobs")]
    assert indexes(entry["execStats"]) == {"retries"}
    assert entry["docsExamined"] <= 3


ASKED: list[tuple[MetadataAsked, list[int]]] = [
    ([("user", "7")], [5, 4, 2, 0]),
    ([("user", "7.0")], [5, 4, 2, 0]),
    ([("user", "7"), ("lesson.id", "a b")], [4]),
    ([("user", "7"), ("user", "8")], [5]),
    ([("done", "true")], [1]),
    ([("$where", "")], [3]),
    ([("lesson", "a b")], []),
    ([("user", "9")], []),
]


@pytest.mark.parametrize(("metadata", "found"), ASKED)
async def test_jobs_are_found_by_their_metadata(jobs: Jobs, metadata: MetadataAsked, found: list[int]) -> None:
    first: list[JsonObject] = [{"user": 7}, {"done": True}, {"user": "7"}, {"$where": ""}]
    written: list[JsonObject] = [*first, {"user": 7.0, "lesson.id": "a b"}, {"user": [7, 8]}]
    made = [job(at=at(n * 3), metadata=metadata) for n, metadata in enumerate(written)]
    await kept(jobs, *made, job(), job(at=at(50), metadata={"user": {"7": 7}}))
    ids = [made[number].job_id for number in found]
    assert [one.job_id for one in await jobs.page(JobFilter(), None, 20, metadata)] == ids
    assert [one.job_id for one in await jobs.page(JobFilter(), None, 1, metadata)] == ids[:1]
    assert await jobs.page(JobFilter(token_id="nobody's"), None, 20, metadata) == []


async def test_a_list_by_metadata_is_read_from_its_index_in_its_order(real_jobs: JobStore, address: str) -> None:
    await asyncio.gather(*(real_jobs.insert(job(at=at(n), metadata={"user": n % 50, "x": 1})) for n in range(500)))
    async with profiled(address) as entries:
        for metadata in ([("user", "7")], [("user", "7.0"), ("x", "1")]):
            assert len(await real_jobs.page(JobFilter(created_after=MOMENT), CURSOR, 5, metadata)) == 5
    for entry in (one for one in entries if one["ns"].endswith(".jobs")):
        assert indexes(entry["execStats"]) == {"metadata"}
        assert entry["docsExamined"] <= 10


async def test_the_other_questions_are_read_from_indexes_too(real_jobs: JobStore, address: str) -> None:
    await asyncio.gather(*(real_jobs.insert(job(at=at(n))) for n in range(300)))
    async with profiled(address) as entries:
        await real_jobs.ahead(job(at=at(200)))
        await real_jobs.ended_before(MOMENT + timedelta(days=9), 100)
        await real_jobs.purging()
    summaries = [entry["planSummary"] for entry in entries if entry["ns"].endswith(".jobs") and "planSummary" in entry]
    assert len(summaries) == 3
    assert all(summary.startswith(("IXSCAN", "COUNT_SCAN")) for summary in summaries), summaries


def at(number: int) -> datetime:
    """A moment, some of which several jobs share."""
    return MOMENT + timedelta(milliseconds=number // 3)


async def test_a_job_is_found_with_and_without_its_history(jobs: Jobs) -> None:
    sound = AudioInfo(duration_seconds=1, sample_rate=1, channels=1, codec="c", container="wav", waveform=[0])
    made = job().model_copy(update={"audio": sound, "result_json": "{}"})
    await kept(jobs, made)
    assert await jobs.find_whole(made.job_id) == made.model_copy(update={"upload_received": None})
    brief = made.model_copy(update={"upload_received": None, "audio": None, "history": []})
    assert await jobs.find(made.job_id) == brief
    assert await jobs.page(JobFilter(), None, 1) == [brief.model_copy(update={"result_json": None})]
    assert await jobs.traceparent(made.job_id) == made.traceparent
    nobody = str(uuid.uuid4())
    assert [await jobs.find(nobody), await jobs.find_whole(nobody), await jobs.traceparent(nobody)] == [None] * 3


async def test_how_many_are_ahead_counts_those_that_came_before_and_are_not_done(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [job(at=MOMENT + timedelta(seconds=number)) for number in range(4)]
    await kept(jobs, *made, job(at=MOMENT, status=Status.COMPLETED))
    assert [await jobs.ahead(one) for one in made] == [0, 1, 2, 3]
    monkeypatch.setattr("contracts.api.MOST_AHEAD", 2)
    assert [await jobs.ahead(one) for one in made] == [0, 1, 2, 2], "no more are counted than are told"


async def test_ended_jobs_are_found_by_age_the_oldest_first(jobs: Jobs) -> None:
    made = [
        job(at=MOMENT + timedelta(seconds=n), status=Status.PROCESSING if n == 1 else Status.CANCELLED)
        for n in range(6)
    ]
    await kept(jobs, *made)
    await jobs.ask_end(Ending.PURGE, [made[0].job_id], MOMENT)
    assert await jobs.ended_before(MOMENT + timedelta(seconds=5), 2) == [made[2].job_id, made[3].job_id]


async def test_a_job_that_is_to_be_purged_is_not_there_any_more(jobs: Jobs) -> None:
    gone, there = await kept(jobs, job(), job())
    assert await jobs.purging() == 0
    await jobs.ask_end(Ending.PURGE, [gone], MOMENT)
    await jobs.ask_end(Ending.PURGE, [gone], MOMENT)
    assert [await jobs.find(gone), await jobs.find_whole(gone)] == [None, None]
    assert [await jobs.traceparent(gone), await jobs.recording(gone)] == [None, None]
    assert [one.job_id for one in await jobs.page(JobFilter(), None, 9)] == [there]
    assert await jobs.purging() == 1
    assert not await jobs.insert(job(gone)), "its id stays taken"


async def test_which_jobs_have_not_ended_is_known_of_those_that_are_asked_about(jobs: Jobs) -> None:
    open_id, ended_id, _ = await kept(jobs, job(), job(status=Status.FAILED), job())
    assert await jobs.unfinished([open_id, ended_id, str(uuid.uuid4())]) == {open_id}


async def test_one_job_that_exists_says_nothing_against_the_others_of_its_batch(jobs: Jobs) -> None:
    twice = job()
    assert await jobs.insert(twice)
    batch = [job(), twice, job(), twice, job()]
    assert await asyncio.gather(*(jobs.insert(one) for one in batch)) == [True, False, True, False, True]
    for one in batch:
        assert await jobs.recording(one.job_id) == Recording(one.token_id, one.sha256)
    assert await jobs.recording(str(uuid.uuid4())) is None


async def test_of_many_claims_at_once_one_is_the_owner_and_all_see_its_job(claims: Claims) -> None:
    found = await asyncio.gather(*(claims.claim("key", f"owner-{n}", f"job-{n}") for n in range(20)))
    assert len({(claim.owner, claim.job_id) for claim in found}) == 1
    assert all(claim.recording is None for claim in found)


async def test_a_freed_key_goes_to_the_next_with_the_first_ones_job(claims: Claims) -> None:
    await claims.claim("key", "first", "job-1")
    await claims.free("key", "somebody else")
    assert (await claims.claim("key", "second", "job-2")).owner == "first"
    await claims.free("key", "first")
    claim = await claims.claim("key", "second", "job-2")
    assert (claim.owner, claim.job_id) == ("second", "job-1")
    await claims.free("key", "first")  # too late: it is somebody else's now
    assert (await claims.claim("key", "third", "job-3")).owner == "second"


async def test_a_lease_ends_by_itself_unless_it_is_renewed(
    real_claims: ClaimStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "LEASE_MS", 300)
    await real_claims.claim("key", "first", "job-1")
    await real_claims.claim("other", "first", "job-9")

    async def taken_over() -> bool:
        await real_claims.renew("other", "first")
        return (await real_claims.claim("key", "second", "job-2")).owner == "second"

    await until(taken_over, "the end of the lease")
    assert (await real_claims.claim("other", "second", "job-2")).owner == "first"


async def test_a_settled_key_stays_so(claims: Claims) -> None:
    await claims.claim("key", "first", "job-1")
    recording = Recording.of("$token", "00" * 32, {"$set": {"a.b": 2**70}})
    await claims.settle("key", recording)
    await claims.renew("key", "first")
    claim = await claims.claim("key", "second", "job-2")
    assert (claim.owner, claim.job_id, claim.recording) == ("first", "job-1", recording)


async def test_what_is_not_there_is_neither_renewed_nor_freed_nor_settled(claims: Claims) -> None:
    for change in (claims.renew("key", "first"), claims.free("key", "first"), claims.settle("key", Recording("7", ""))):
        await change
    assert (await claims.claim("key", "second", "job-2")).owner == "second"


async def test_a_key_is_kept_for_a_day(real_claims: ClaimStore, mongodb: MongoDB) -> None:
    await real_claims.claim("key", "first", "job-1")
    await real_claims.settle("key", Recording("$token", "00" * 32))
    keys = mongodb.client.get_default_database()["idempotency_keys"]
    assert (await keys.index_information())["kept"]["expireAfterSeconds"] == 24 * 3600
    document = await keys.find_one({"_id": "key"})
    assert isinstance(document["created_at"], datetime)
