"""Cancelling and purging, and the jobs that are purged because they are old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from contracts import events
from contracts.events import Event, RecordingData
from contracts.job import Job, Status
from gateway.jobs import retention as retaining
from gateway.jobs.removals import Ending, event_of
from gateway.jobs.retention import Retention
from tests.support.gateway_stores import Jobs
from tests.support.waiting import until_true
from tests.unit import stories

AGE = timedelta(milliseconds=20)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int = 0) -> Job:
    return Job.received(stories.received(f"00000000-0000-4000-8000-{number:012}"), None)


@pytest.mark.parametrize(("ending", "kind"), [(Ending.CANCEL, events.JobCancelled), (Ending.PURGE, events.JobPurged)])
def test_asking_twice_is_one_event_in_the_jobs_own_trace(ending: Ending, kind: type[Event]) -> None:
    recording = RecordingData(token_id=job().token_id, metadata={"user": 7}, owner="user:" + "7" * 32)
    first, second = (event_of(ending, job().job_id, recording, job().traceparent) for _ in range(2))
    assert isinstance(first, kind)
    assert first.id == second.id
    assert first.data.passed_on() == recording.passed_on()
    assert (first.subject, first.traceparent) == (job().job_id, job().traceparent)
    assert events.decode(first.encode()) == first


def old_jobs(count: int, failures: int = 0) -> Jobs:
    """Ended jobs, which stay until they are taken away."""
    return Jobs(*(ended(number) for number in range(count)), failures=failures)


def ended(number: int) -> Job:
    view = job().view.model_copy(update={"status": Status.COMPLETED})
    return job(number).model_copy(update={"view": view, "created_at": BEGAN + timedelta(seconds=number)})


def purging(jobs: Jobs) -> list[str]:
    return [job_id for job_id, kept in jobs.kept.items() if kept.purge_asked_at is not None]


@asynccontextmanager
async def looking(jobs: Jobs) -> AsyncIterator[None]:
    retention = Retention(jobs, AGE)
    retention.start()
    try:
        await until_true(lambda: len(jobs.asked_ended) > 4, "four looks to their end")
        yield
    finally:
        await retention.stop()


async def test_every_old_job_is_to_be_purged_and_no_other() -> None:
    jobs = old_jobs(3)
    young = ended(9).model_copy(update={"created_at": datetime.now(UTC) + timedelta(days=1)})
    jobs.kept[young.job_id] = young
    before = datetime.now(UTC)
    async with looking(jobs):
        assert purging(jobs) == [ended(number).job_id for number in range(3)]
        assert before - AGE <= jobs.asked_ended[0][0] <= datetime.now(UTC) - AGE


async def test_an_outage_of_mongodb_delays_it_only() -> None:
    jobs = old_jobs(3, failures=1)
    async with looking(jobs):
        assert purging(jobs) == list(jobs.kept)


async def test_no_more_are_purged_while_many_are_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "JOBS_PER_LOOK", 3)
    monkeypatch.setattr(retaining, "MAX_PURGING", 5)
    jobs = old_jobs(9)
    retention = Retention(jobs, AGE)
    for _ in range(4):
        await retention.look()
    assert len(purging(jobs)) == 5
    assert [limit for _, limit in jobs.asked_ended] == [3, 2]


async def test_without_an_age_nothing_is_looked_for() -> None:
    jobs = old_jobs(1)
    retention = Retention(jobs, None)
    retention.start()
    await asyncio.sleep(0)
    await retention.stop()
    assert jobs.asked_ended == []
