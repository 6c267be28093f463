"""Cancelling and purging, and the jobs that are purged because they are old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from contracts import events
from contracts.events import Event
from contracts.job import Job
from gateway import removals
from gateway.removals import Retention, cancelled, purged
from tests.unit import stories

AGE = timedelta(milliseconds=20)
LIMIT_SECONDS = 5.0


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


class Jobs:
    """Old jobs, which stay until they are taken away; unreachable as often as told."""

    def __init__(self, count: int, failures: int = 0) -> None:
        self.old = [job(number) for number in range(count)]
        self.asked: list[tuple[datetime, int]] = []
        self.looked = asyncio.Event()
        self._failures = failures

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        self.asked.append((moment, limit))
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        if len(self.asked) >= 4:
            self.looked.set()
        return [old for old in self.old if old.job_id not in besides][:limit]


class Broker:
    """Keeps what is published; refuses as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.published: list[Event] = []
        self._failures = failures

    async def publish(self, event: Event) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        self.published.append(event)

    @property
    def jobs(self) -> list[str]:
        return [event.subject for event in self.published]


@asynccontextmanager
async def looking(jobs: Jobs, broker: Broker) -> AsyncIterator[None]:
    retention = Retention(jobs, broker, AGE)
    retention.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await jobs.looked.wait()
        yield
    finally:
        await retention.stop()


async def test_every_old_job_is_purged_once_although_it_stays_for_a_while() -> None:
    jobs, broker = Jobs(3), Broker()
    before = datetime.now(UTC)
    async with looking(jobs, broker):
        assert broker.jobs == [old.job_id for old in jobs.old]
        assert before - AGE <= jobs.asked[0][0] <= datetime.now(UTC) - AGE


async def test_an_outage_of_either_back_end_delays_it_only() -> None:
    jobs, broker = Jobs(3, failures=1), Broker(failures=2)
    async with looking(jobs, broker):
        assert broker.jobs == [old.job_id for old in jobs.old]


async def test_what_is_still_there_after_a_long_time_is_purged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "ASKED_AGAIN", timedelta(0))
    jobs, broker = Jobs(1), Broker()
    async with looking(jobs, broker):
        assert len(broker.jobs) > 1
        assert len({event.id for event in broker.published}) == 1


async def test_no_more_are_purged_while_many_are_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "JOBS_PER_LOOK", 3)
    monkeypatch.setattr(removals, "MAX_ASKED", 5)
    jobs, broker = Jobs(9), Broker()
    retention = Retention(jobs, broker, AGE)
    for _ in range(4):
        await retention._look(AGE)
    assert len(broker.jobs) == 5
    assert [limit for _, limit in jobs.asked] == [3, 2]


async def test_without_an_age_nothing_is_looked_for() -> None:
    jobs = Jobs(1)
    retention = Retention(jobs, Broker(), None)
    retention.start()
    await asyncio.sleep(0)
    await retention.stop()
    assert jobs.asked == []
