"""The outbox: what a crash or an outage left unpublished is published in the end, and nobody waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from contracts.events import Event, UploadReceived
from contracts.job import Job
from gateway.uploads import outbox
from gateway.uploads.outbox import Outbox
from tests.support.gateway_stores import Broker, Jobs
from tests.support.waiting import until_true
from tests.unit import stories

LIMIT_SECONDS = 5.0
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
OTHER_JOB = "00000000-0000-4000-8000-000000000001"


def marked(*events: Event) -> list[Job]:
    """Jobs of long ago whose events are still marked."""
    return [
        Job.received(event, None).model_copy(update={"created_at": LONG_AGO})
        for event in events
        if isinstance(event, UploadReceived)
    ]


def marked_with(text: bytes) -> Job:
    (job,) = marked(stories.received(OTHER_JOB))
    return job.model_copy(update={"outbox": text.decode()})


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
    await until_true(lambda: bool(broker.published), "an event being published")
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
        await until_true(lambda: bool(jobs.asked_unpublished), "a look")
        running.publish_soon(event)
        await until_true(lambda: jobs.asked_unpublished[-1][0] <= timedelta(seconds=1), "a look for what is young")


async def test_what_a_crash_left_is_relayed() -> None:
    broker, event = Broker(), stories.received()
    jobs = Jobs(*marked(event))
    async with relaying(jobs, broker):
        assert await until_one(broker) == event
    assert jobs.prepared == 1


async def test_the_relay_outlives_outages_of_both_back_ends() -> None:
    broker, event = Broker(failures=3), stories.received()
    async with relaying(Jobs(*marked(event), failures=3), broker):
        assert await until_one(broker) == event


async def test_an_event_that_cannot_be_read_does_not_hold_up_the_others() -> None:
    """As when a newer gateway wrote it."""
    broker, event = Broker(), stories.received()
    newer = stories.received(OTHER_JOB).encode().replace(b"upload.received.v1", b"upload.received.v9")
    async with relaying(Jobs(marked_with(newer), *marked(event)), broker):
        assert await until_one(broker) == event


async def test_a_mark_that_cannot_be_read_rests_like_a_relayed_one() -> None:
    """Whatever it is, its text cannot tell whose it is; and the log need not say it every few seconds."""
    jobs = Jobs(marked_with(b"no event"))
    with capture_logs() as logged:
        async with relaying(jobs, Broker()):
            await until_true(lambda: len(jobs.asked_unpublished) > 20, "some looks")
    errors = [line for line in logged if line["log_level"] == "error"]
    assert [line["job_id"] for line in errors] == [OTHER_JOB]


async def test_only_so_many_events_of_some_age_are_looked_for() -> None:
    broker, jobs = Broker(), Jobs(*marked(stories.received()))
    async with relaying(jobs, broker):
        await until_one(broker)
    (older_than, limit), *_ = jobs.asked_unpublished
    assert older_than >= timedelta(seconds=5), "younger marks are about to be cleared anyway"
    assert 0 < limit <= 1000


async def test_what_was_relayed_rests_although_its_mark_stands() -> None:
    """The notifier, which clears the marks, may be away for an hour; repeats would only make work for the others."""
    broker, jobs = Broker(), Jobs(*marked(stories.received()))
    async with relaying(jobs, broker):
        await until_one(broker)
        seen = len(jobs.asked_unpublished)
        await until_true(lambda: len(jobs.asked_unpublished) > seen + 20, "some more looks")
    assert len(broker.published) == 1
