"""The outbox: what a crash or an outage left unpublished is published in the end, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from contracts.events import Event
from gateway import outbox
from gateway.outbox import Outbox
from tests.support.waiting import until_true
from tests.unit import stories

LIMIT_SECONDS = 5.0
OTHER_JOB = "00000000-0000-4000-8000-000000000001"


class Broker:
    """A broker that is down as often as it is told, then takes events."""

    def __init__(self, failures: int = 0) -> None:
        self.published: list[Event] = []
        self.took_one = asyncio.Event()
        self._failures = failures

    async def publish(self, event: Event) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        self.published.append(event)
        self.took_one.set()


class Jobs:
    """Job documents with an outbox mark each; unreachable as often as told."""

    def __init__(self, *marks: Event | tuple[str, bytes], failures: int = 0) -> None:
        self.marks = [(mark.subject, mark.encode()) if isinstance(mark, Event) else mark for mark in marks]
        self.prepared = 0
        self.asked: list[tuple[timedelta, int]] = []
        self.looks = 0
        self._failures = failures

    async def prepare(self) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        self.prepared += 1

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        self.asked.append((older_than, limit))
        self.looks += 1
        return [(job_id, body) for job_id, body in self.marks if job_id not in besides]


@asynccontextmanager
async def relaying(jobs: Jobs, broker: Broker) -> AsyncIterator[Outbox]:
    running = Outbox(jobs, broker)
    running.start()
    yield running
    await running.stop()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RELAY_SECONDS", 0.001)


async def until_one(broker: Broker) -> Event:
    async with asyncio.timeout(LIMIT_SECONDS):
        await broker.took_one.wait()
    return broker.published[0]


async def test_what_is_being_published_is_published_before_the_service_stops() -> None:
    broker, event = Broker(), stories.received()
    leaving = Outbox(Jobs(), broker)
    leaving.publish_soon(event)
    await leaving.stop()
    assert broker.published == [event]


async def test_an_outage_of_the_broker_is_not_the_users_business() -> None:
    broker = Broker(failures=1)
    leaving = Outbox(Jobs(), broker)
    leaving.publish_soon(stories.received())
    await leaving.stop()
    assert broker.published == []


async def test_what_was_not_confirmed_is_published_again_though_its_mark_is_gone() -> None:
    """The notifier may have had it, and cleared the mark, while the uploader's queue has not."""
    broker, event = Broker(failures=2), stories.received()
    async with relaying(Jobs(), broker) as leaving:
        leaving.publish_soon(event)
        assert await until_one(broker) == event


async def test_a_broker_that_hangs_holds_the_service_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark in the job stands."""
    monkeypatch.setattr(outbox, "STOP_SECONDS", 0.05)
    given_up = asyncio.Event()

    class Hanging(Broker):
        async def publish(self, event: Event) -> None:  # noqa: ARG002 - as the protocol has it
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

    leaving = Outbox(Jobs(), Hanging())
    leaving.publish_soon(stories.received())
    async with asyncio.timeout(LIMIT_SECONDS):
        await leaving.stop()
        await given_up.wait()


async def test_what_failed_to_be_published_is_looked_for_at_once() -> None:
    """Not only once it is as old as what a crash leaves."""
    broker, event = Broker(failures=1), stories.received()
    jobs = Jobs()
    async with relaying(jobs, broker) as running:
        await until_true(lambda: jobs.looks > 0, "a look")
        running.publish_soon(event)
        await until_true(lambda: jobs.asked[-1][0] <= timedelta(seconds=1), "a look for what is young")


async def test_what_a_crash_left_is_relayed() -> None:
    broker, event = Broker(), stories.received()
    jobs = Jobs(event)
    async with relaying(jobs, broker):
        assert await until_one(broker) == event
    assert jobs.prepared == 1


async def test_the_relay_outlives_outages_of_both_back_ends() -> None:
    broker, event = Broker(failures=3), stories.received()
    async with relaying(Jobs(event, failures=3), broker):
        assert await until_one(broker) == event


async def test_an_event_that_cannot_be_read_does_not_hold_up_the_others() -> None:
    """As when a newer gateway wrote it."""
    broker, event = Broker(), stories.received()
    newer = stories.received(OTHER_JOB).encode().replace(b"upload.received.v1", b"upload.received.v9")
    async with relaying(Jobs((OTHER_JOB, newer), event), broker):
        assert await until_one(broker) == event


async def test_a_mark_that_cannot_be_read_rests_like_a_relayed_one() -> None:
    """Whatever it is, its text cannot tell whose it is; and the log need not say it every few seconds."""
    jobs = Jobs((OTHER_JOB, b"no event"))
    with capture_logs() as logged:
        async with relaying(jobs, Broker()):
            await until_true(lambda: jobs.looks > 20, "some looks")
    errors = [line for line in logged if line["log_level"] == "error"]
    assert [line["job_id"] for line in errors] == [OTHER_JOB]


async def test_only_so_many_events_of_some_age_are_looked_for() -> None:
    broker, jobs = Broker(), Jobs(stories.received())
    async with relaying(jobs, broker):
        await until_one(broker)
    (older_than, limit), *_ = jobs.asked
    assert older_than >= timedelta(seconds=5), "younger marks are about to be cleared anyway"
    assert 0 < limit <= 1000


async def test_what_was_relayed_rests_although_its_mark_stands() -> None:
    """The notifier, which clears the marks, may be away for an hour; repeats would only make work for the others."""
    broker, jobs = Broker(), Jobs(stories.received())
    async with relaying(jobs, broker):
        await until_one(broker)
        seen = jobs.looks
        await until_true(lambda: jobs.looks > seen + 20, "some more looks")
    assert len(broker.published) == 1
