"""Publishing what was just accepted: nobody waits for it, and what fails is due again soon."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from contracts import topology
from contracts.events import Event, UploadReceived
from contracts.job import Job
from gateway.redrive import timing
from gateway.uploads import publishing
from gateway.uploads.publishing import Publishing
from tests.support.gateway_stores import Broker, Jobs, Redrives
from tests.unit import stories

LIMIT_SECONDS = 5.0
AFTER = timedelta(seconds=60)


def accepted(event: UploadReceived) -> Jobs:
    """The job that was just inserted."""
    return Jobs(Job.received(event, None, publish_at=timing.first_look(event.time, AFTER)))


async def test_what_is_being_published_is_published_before_the_service_stops() -> None:
    broker, event = Broker(), stories.received()
    jobs = accepted(event)
    before = jobs.kept[event.subject]
    leaving = Publishing(Redrives(jobs), broker, AFTER)
    leaving.publish_soon(event)
    await leaving.stop()
    assert (broker.published, broker.redriven) == ([event], [])
    assert jobs.kept[event.subject] == before, "a success writes nothing"


async def test_what_failed_to_be_published_is_due_after_a_second() -> None:
    broker, event = Broker(failures=1), stories.received()
    jobs = accepted(event)
    leaving = Publishing(Redrives(jobs), broker, AFTER)
    leaving.publish_soon(event)
    await leaving.stop()
    assert broker.published == []
    due = jobs.kept[event.subject].publish_at
    assert due is not None
    assert timedelta() < due - datetime.now(UTC) <= timedelta(seconds=1)


async def test_a_broker_that_hangs_holds_the_service_up_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is looked at in time all the same."""
    monkeypatch.setattr(publishing, "STOP_SECONDS", 0.05)
    given_up = asyncio.Event()

    class Hanging(Broker):
        async def publish(self, event: Event, *, redriven: bool = False) -> None:  # noqa: ARG002 - as the protocol has it
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

        async def redrive(self, event: Event, queue: topology.Queue) -> None: ...

    event = stories.received()
    leaving = Publishing(Redrives(accepted(event)), Hanging(), AFTER)
    leaving.publish_soon(event)
    async with asyncio.timeout(LIMIT_SECONDS):
        await leaving.stop()
        await given_up.wait()
