"""The jobs of one owner, and erasures: the stand-ins of the unit tests and MongoDB behave alike, by index."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.accounts import Session
from contracts.job import Job
from contracts.rights import Role
from contracts.scores import Scores, ScriptScore
from gateway.accounts.store import SessionStore
from gateway.audio import Recording
from gateway.jobs.documents import Jobs
from gateway.jobs.listing import Cursor
from gateway.jobs.removals import Ending
from gateway.jobs.store import JobStore
from gateway.person import erasing
from gateway.person.documents import OwnedJobs
from gateway.person.erasing import Erasure
from gateway.person.store import ErasureStore, OwnedJobStore
from gateway.redrive.store import RedriveStore
from gateway.uploads.claims import ClaimStore
from gateway.uploads.idempotency import Claims
from local_stack.stack import Stack
from tests.support import gateway_stores as in_memory
from tests.support.databases import own_database, profiled, stages
from tests.support.events import Story

OWNER, OTHER = "user:" + "a" * 32, "user:" + "b" * 32
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own on the stack's server."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture
async def mongodb(address: str) -> AsyncIterator[MongoDB]:
    """The gateway's own client of it, with the indexes of the jobs."""
    opened = MongoDB(address, REQUEST_LIMITS)
    await RedriveStore(opened).prepare()
    yield opened
    opened.close()


@dataclass(frozen=True)
class Stores:
    """Either kind of each."""

    jobs: Jobs
    owned: OwnedJobs
    erasures: erasing.Erasures


@pytest.fixture(params=["in memory", "MongoDB"])
def stores(request: pytest.FixtureRequest, mongodb: MongoDB) -> Stores:
    """The stand-ins and the real ones."""
    if request.param == "MongoDB":
        return Stores(JobStore(mongodb), OwnedJobStore(mongodb), ErasureStore(mongodb))
    jobs = in_memory.Jobs()
    return Stores(jobs, in_memory.OwnedJobs(jobs), in_memory.Erasures())


def job(number: int, owner: str | None = OWNER, token_id: str = "a-token", overall: float | None = None) -> Job:
    event = Story(str(uuid.UUID(int=number)), token_id).upload_received()
    event = event.model_copy(update={"time": MOMENT + timedelta(seconds=number // 2)})
    scores = None if overall is None else Scores(overall=overall, scripts=[ScriptScore(script_id=1, score=overall)])
    began = MOMENT + timedelta(seconds=number // 2 - 1)
    return Job.received(event, "a.wav").model_copy(update={"owner": owner, "scores": scores, "began_at": began})


async def kept(jobs: Jobs, *new: Job) -> list[str]:
    for one in new:
        assert await jobs.insert(one)
    return [one.job_id for one in new]


async def test_pages_of_somebodys_jobs_have_each_once_whole_and_the_newest_first(stores: Stores) -> None:
    mine = [job(number).model_copy(update={"result_json": "{}"}) for number in range(7)]
    await kept(stores.jobs, *mine, job(8, OTHER), job(9, None))
    gone = job(10)
    await kept(stores.jobs, gone)
    await stores.jobs.ask_end(Ending.PURGE, [gone.job_id], MOMENT)
    found: list[Job] = []
    after: Cursor | None = None
    while page := await stores.owned.page(OWNER, after, 3):
        found += page
        after = Cursor(page[-1].created_at, page[-1].job_id)
    whole = [one.model_copy(update={"upload_received": None, "metadata_terms": []}) for one in reversed(mine)]
    assert found == whole


async def test_scores_come_by_token_the_newest_first(stores: Stores) -> None:
    mine = [job(number, token_id="ba"[number % 2], overall=number) for number in range(4)]
    await kept(stores.jobs, *mine, job(5), job(6, OTHER, overall=1), job(7, None, overall=1))
    found = await stores.owned.scored(OWNER, "", 10)
    assert [(one.token_id, one.job_id) for one in found] == [
        ("a", mine[3].job_id),
        ("a", mine[1].job_id),
        ("b", mine[2].job_id),
        ("b", mine[0].job_id),
    ]
    assert found[0].scores == mine[3].scores
    assert [one.job_id for one in await stores.owned.scored(OWNER, "a", 1)] == [mine[2].job_id]


async def test_what_had_begun_by_a_moment_is_found_however_late_it_became_a_job(stores: Stores) -> None:
    late = job(1).model_copy(update={"began_at": MOMENT, "created_at": MOMENT + timedelta(hours=1)})
    old = job(2).model_copy(update={"began_at": None, "created_at": MOMENT})
    new = job(3).model_copy(update={"began_at": MOMENT + timedelta(seconds=1)})
    await kept(stores.jobs, late, old, new, job(4, OTHER).model_copy(update={"began_at": MOMENT}))
    assert set(await stores.owned.begun_by(OWNER, MOMENT, 10)) == {late.job_id, old.job_id}
    assert len(await stores.owned.begun_by(OWNER, MOMENT, 1)) == 1
    await stores.jobs.ask_end(Ending.PURGE, [late.job_id], MOMENT)
    assert await stores.owned.begun_by(OWNER, MOMENT, 10) == [old.job_id]


async def test_an_erasure_is_due_until_it_is_finished_and_a_later_request_counts(stores: Stores) -> None:
    erasures, later = stores.erasures, MOMENT + timedelta(seconds=1)
    await erasures.ask(OWNER, MOMENT)
    await erasures.ask(OTHER, later)
    assert await erasures.due(later, 9) == [Erasure(OWNER, MOMENT), Erasure(OTHER, later)]
    assert await erasures.due(later, 1) == [Erasure(OWNER, MOMENT)]
    await erasures.look_again(Erasure(OWNER, MOMENT), later + timedelta(seconds=1))
    assert await erasures.due(later, 9) == [Erasure(OTHER, later)]
    await erasures.ask(OWNER, later)
    await erasures.ask(OWNER, MOMENT)
    await erasures.look_again(Erasure(OWNER, MOMENT), later + timedelta(days=1))
    await erasures.finish(Erasure(OWNER, MOMENT))
    assert Erasure(OWNER, later) in await erasures.due(later, 9)
    await erasures.finish(Erasure(OWNER, later))
    assert await erasures.due(later, 9) == [Erasure(OTHER, later)]


async def test_every_question_is_read_from_an_index_in_its_order(address: str, mongodb: MongoDB) -> None:
    jobs, owned = JobStore(mongodb), OwnedJobStore(mongodb)
    await kept(jobs, *(job(n, (OWNER, OTHER)[n % 2], f"token-{n % 10}", n / 10) for n in range(300)))
    async with profiled(address) as entries:
        await owned.page(OWNER, Cursor(MOMENT + timedelta(seconds=100), str(uuid.UUID(int=200))), 5)
        await owned.scored(OWNER, "token-2", 20)
        await owned.begun_by(OWNER, MOMENT + timedelta(days=1), 20)
    asked = [entry for entry in entries if entry["ns"].endswith(".jobs")]
    assert len(asked) == 3
    for entry in asked:
        assert not {"COLLSCAN", "SORT"} & set(stages(entry["execStats"])), entry
        assert entry["docsExamined"] <= 25


@pytest.mark.parametrize("kind", ["in memory", "MongoDB"])
async def test_the_claims_of_purged_jobs_can_be_forgotten(mongodb: MongoDB, kind: str) -> None:
    claims: Claims = in_memory.Claims() if kind == "in memory" else ClaimStore(mongodb)
    for number in range(3):
        await claims.claim(f"key-{number}", "x", f"job-{number}")
    await claims.settle("key-0", Recording("a", None))
    await claims.forget(["job-0", "job-1", "no-job"])
    # Whoever claims a forgotten key now chooses the job anew.
    claimed = [await claims.claim(f"key-{number}", "y", "new") for number in range(3)]
    assert [claim.job_id for claim in claimed] == ["new", "new", "job-2"]


async def test_only_sessions_that_had_begun_are_ended(mongodb: MongoDB) -> None:
    sessions = SessionStore(mongodb)
    for name, owner, seconds in (("old", OWNER, 0), ("new", OWNER, 1), ("other's", OTHER, 0)):
        at = MOMENT + timedelta(seconds=seconds)
        await sessions.insert(
            Session(session_id=name, owner=owner, roles=[Role.LEARNER], created_at=at, expires_at=at + timedelta(1e4))
        )
    await sessions.end_all(OWNER, MOMENT)
    assert [await sessions.remove(name) for name in ("old", "new", "other's")] == [False, True, True]
