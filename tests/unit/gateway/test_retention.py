"""Cancelling and purging, and the jobs that are purged because they are old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from contracts import events
from contracts.events import Event
from contracts.job import Job, Status
from gateway.jobs import retention as retaining
from gateway.jobs.removals import cancelled, purged
from gateway.jobs.retention import Retention
from tests.support.gateway_stores import Broker, Jobs
from tests.support.waiting import until_true
from tests.unit import stories

AGE = timedelta(milliseconds=20)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int = 0) -> Job:
    return Job.received(stories.received(f"00000000-0000-4000-8000-{number:012}"), None)


@pytest.mark.parametrize(("made", "kind"), [(cancelled, events.JobCancelled), (purged, events.JobPurged)])
def test_asking_twice_is_one_event_in_the_jobs_own_trace(made: object, kind: type[Event]) -> None:
    assert callable(made)
    first, second = made(job()), made(job())
    assert isinstance(first, kind)
    assert first.id == second.id
    assert (first.subject, first.traceparent) == (job().job_id, job().traceparent)
    assert events.decode(first.encode()) == first


def old_jobs(count: int, failures: int = 0) -> Jobs:
    """Ended jobs, which stay until they are taken away."""
    return Jobs(*(ended(number) for number in range(count)), failures=failures)


def ended(number: int) -> Job:
    view = job().view.model_copy(update={"status": Status.COMPLETED})
    return job(number).model_copy(update={"view": view, "created_at": BEGAN + timedelta(seconds=number)})


def subjects(broker: Broker) -> list[str]:
    return [event.subject for event in broker.published]


@asynccontextmanager
async def looking(jobs: Jobs, broker: Broker) -> AsyncIterator[None]:
    retention = Retention(jobs, broker, AGE)
    retention.start()
    try:
        await until_true(lambda: len(jobs.asked_ended) > 4, "four looks to their end")
        yield
    finally:
        await retention.stop()


async def test_every_old_job_is_purged_once_although_it_stays_for_a_while() -> None:
    jobs, broker = old_jobs(3), Broker()
    before = datetime.now(UTC)
    async with looking(jobs, broker):
        assert subjects(broker) == list(jobs.kept)
        assert before - AGE <= jobs.asked_ended[0][0] <= datetime.now(UTC) - AGE


async def test_an_outage_of_either_back_end_delays_it_only() -> None:
    jobs, broker = old_jobs(3, failures=1), Broker(failures=2)
    async with looking(jobs, broker):
        assert subjects(broker) == list(jobs.kept)


async def test_what_is_still_there_after_a_long_time_is_purged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "REPEATED_AFTER", timedelta(0))
    jobs, broker = old_jobs(1), Broker()
    async with looking(jobs, broker):
        assert len(subjects(broker)) > 1
        assert len({event.id for event in broker.published}) == 1


async def test_no_more_are_purged_while_many_are_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retaining, "JOBS_PER_LOOK", 3)
    monkeypatch.setattr(retaining, "MAX_PURGED", 5)
    jobs, broker = old_jobs(9), Broker()
    retention = Retention(jobs, broker, AGE)
    for _ in range(4):
        await retention.look()
    assert len(subjects(broker)) == 5
    assert [limit for _, limit in jobs.asked_ended] == [3, 2]


async def test_without_an_age_nothing_is_looked_for() -> None:
    jobs = old_jobs(1)
    retention = Retention(jobs, Broker(), None)
    retention.start()
    await asyncio.sleep(0)
    await retention.stop()
    assert jobs.asked_ended == []
