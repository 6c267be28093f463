"""Giving jobs up: what stands still for two looks in a row ends; what an outage kept waiting moves first."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts import events, topology
from contracts.events import Event, JobExpired, RecordingData
from contracts.failures import FailureCode
from notifier.expiry import Expiry
from notifier.jobs import StandingJob
from tests.support.notifier_jobs import Jobs
from tests.unit import stories

MAX_AGE = timedelta(hours=1)
NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
BEGAN_TO_CONSUME = NOW - timedelta(minutes=10)
LIMIT_SECONDS = 5.0
RECORDING = RecordingData(token_id=stories.TOKEN_ID, metadata={"user": 7})
JOB = StandingJob(stories.JOB_ID, RECORDING, stories.TRACEPARENT, 3, is_held=False)


class StandingJobs(Jobs):
    """The jobs that stand still, whatever their documents say; `asked` is what was asked for."""

    def __init__(self, *standing: StandingJob) -> None:
        super().__init__()
        self.standing = list(standing)
        self.asked: list[tuple[datetime, datetime]] = []
        self.looked = asyncio.Event()

    async def standing_since(self, moment: datetime, redriven_since: datetime) -> Sequence[StandingJob]:
        self.asked.append((moment, redriven_since))
        self.looked.set()
        await super().standing_since(moment, redriven_since)
        return list(self.standing)


class Broker:
    """What was published; away when told."""

    def __init__(self) -> None:
        self.published: list[JobExpired] = []
        self.is_away = False
        self.refuses = False

    async def consumes(self) -> bool:
        return not self.is_away

    def consuming_since(self) -> datetime | None:
        return None if self.is_away else BEGAN_TO_CONSUME

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        raise AssertionError(f"the gateway does that: {event.id} to {queue.name}")

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        assert not redriven
        assert isinstance(event, JobExpired)
        if self.refuses:
            raise ConnectionError("down")
        self.published.append(event)


class Service:
    """Expiry over jobs and a broker in memory."""

    def __init__(self, *standing: StandingJob) -> None:
        self.jobs = StandingJobs(*standing)
        self.broker = Broker()
        self.expiry = Expiry(self.jobs, self.broker, MAX_AGE)

    async def look(self) -> None:
        await self.expiry.look(NOW)

    async def failing_look(self) -> None:
        with pytest.raises(ConnectionError):
            await self.look()

    @property
    def given_up(self) -> list[str]:
        return [event.subject for event in self.broker.published]


async def test_a_job_is_given_up_at_the_second_look_that_finds_it_as_it_was() -> None:
    service = Service(JOB)
    await service.look()
    assert service.given_up == []
    await service.look()
    (event,) = service.broker.published
    assert (event.subject, event.data.token_id, event.trace_id) == (JOB.job_id, stories.TOKEN_ID, stories.TRACE_ID)
    assert (event.data.code, event.data.metadata) == (FailureCode.NO_PROGRESS, {"user": 7})
    assert events.decode(event.encode()) == event


async def test_a_held_job_is_told_so() -> None:
    service = Service(replace(JOB, is_held=True))
    await service.look()
    await service.look()
    assert [event.data.code for event in service.broker.published] == [FailureCode.HELD_TOO_LONG]


async def test_a_job_that_moved_between_two_looks_begins_anew() -> None:
    service = Service(JOB)
    await service.look()
    service.jobs.standing = [replace(JOB, revision=4)]
    await service.look()
    assert service.given_up == []
    await service.look()
    assert service.given_up == [JOB.job_id]


async def test_a_job_that_was_away_for_one_look_begins_anew() -> None:
    service = Service(JOB)
    await service.look()
    service.jobs.standing = []
    await service.look()
    service.jobs.standing = [JOB]
    await service.look()
    assert service.given_up == []


async def test_an_outage_of_mongodb_forgets_what_was_seen_before_it() -> None:
    service = Service(JOB)
    await service.look()
    service.jobs.error = ConnectionError("down")
    await service.failing_look()
    service.jobs.error = None
    await service.look()
    assert service.given_up == []
    await service.look()
    assert service.given_up == [JOB.job_id]


async def test_an_outage_of_the_broker_forgets_what_was_seen_before_it() -> None:
    """What would have moved the job waits there."""
    service = Service(JOB)
    await service.look()
    service.broker.is_away = True
    await service.failing_look()
    assert len(service.jobs.asked) == 1, "a look while nothing moves is none"
    service.broker.is_away = False
    await service.look()
    assert service.given_up == []


async def test_a_broker_that_goes_away_while_jobs_are_given_up_forgets_too() -> None:
    service = Service(JOB)
    await service.look()
    service.broker.refuses = True
    await service.failing_look()
    service.broker.refuses = False
    await service.look()
    assert service.given_up == []


async def test_a_job_expires_once_however_many_replicas_look_and_how_often() -> None:
    replicas = [Service(JOB), Service(JOB)]
    for _ in range(3):
        for replica in replicas:
            await replica.look()
    ids = {event.id for replica in replicas for event in replica.broker.published}
    assert ids == {events.event_id(JOB.job_id, JobExpired.TYPE)}


async def test_a_job_must_be_old_and_told_again_since_this_process_began_to_consume() -> None:
    service = Service()
    await service.look()
    assert service.jobs.asked == [(NOW - MAX_AGE, BEGAN_TO_CONSUME)]


async def test_a_look_that_failed_is_followed_by_others_until_it_is_stopped() -> None:
    jobs = StandingJobs(JOB)
    jobs.error = ConnectionError("down")
    expiry = Expiry(jobs, Broker(), timedelta(milliseconds=20))
    expiry.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(jobs.asked) < 3:
                jobs.looked.clear()
                await jobs.looked.wait()
    finally:
        await expiry.stop()
    looks = len(jobs.asked)
    await asyncio.sleep(0)
    assert len(jobs.asked) == looks
