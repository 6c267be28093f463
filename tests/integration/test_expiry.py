"""Giving up jobs that nothing moves: which those are, found by an index, and how they end."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from contracts import topology
from contracts.events import Event
from contracts.job import Job, apply, changed
from local_stack.stack import Stack
from notifier.expiry import Expiry
from notifier.store import JobStore
from tests.support.broker import Broker
from tests.support.events import Story
from tests.support.sori import Sori

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
OLD = timedelta(hours=36)


class Consuming:
    """The broker as a notifier has it that is at work."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def consumes(self) -> bool:
        return True

    def consuming_since(self) -> datetime | None:
        return datetime.now(UTC) - HOUR

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        assert not redriven
        await self._broker.publish(event)

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        raise AssertionError(f"the gateway does that: {event.id} to {queue.name}")


@pytest.fixture
async def store(stack: Stack) -> AsyncIterator[JobStore]:
    """The notifier's own way to the stack's jobs."""
    mongodb = MongoDB(stack.settings["MONGODB_URL"], MESSAGE_LIMITS)
    yield JobStore(mongodb)
    mongodb.close()


async def standing(store: JobStore) -> set[str]:
    """The jobs that a look finds now."""
    now = datetime.now(UTC)
    return {job.job_id for job in await store.standing_since(now - DAY, now - HOUR)}


async def kept(jobs: Any, age: timedelta, *, redriven: bool = True, then: str = "") -> str:
    """A job of this age with all that happened to it then; its recording is nowhere. It was told again just now."""
    story = Story(str(uuid.uuid4()))
    received = story.upload_received(age=age)
    job = Job.received(received, None)
    happened: list[Event] = [received]
    if then == "held":
        happened.append(story.job_held("uploader.upload.received.v1", received))
    elif then:
        happened.append(getattr(story, then)())
    for event in happened:
        change = apply(job, event.model_copy(update={"time": received.time}))
        assert change is not None
        job = changed(job, change)
    told_again = {"redriven_at": datetime.now(UTC)} if redriven else {}
    later = {"publish_at": datetime.now(UTC) + DAY}
    await jobs.insert_one({**job.model_dump(by_alias=True), **told_again, **later})
    return story.job_id


async def test_what_stands_still_is_given_up_and_nothing_else(
    store: JobStore, jobs: Any, broker: Broker, sori: Sori
) -> None:
    still = await kept(jobs, OLD)
    held = await kept(jobs, OLD, redriven=False, then="held")
    young = await kept(jobs, timedelta(hours=1))
    ended = await kept(jobs, OLD, then="analysis_failed")
    never_told = await kept(jobs, OLD, redriven=False)
    expiry = Expiry(store, Consuming(broker), DAY)
    try:
        await expiry.look(datetime.now(UTC))
        assert await standing(store) >= {still, held}
        await expiry.look(datetime.now(UTC))
        ends = {job_id: await sori.ended(job_id) for job_id in (still, held)}
        assert {job_id: (end["status"], end["error"]["code"]) for job_id, end in ends.items()} == {
            still: ("failed", "no_progress"),
            held: ("failed", "held_too_long"),
        }
        assert ends[still]["progress"] == 40
        assert not await standing(store) & {still, held, young, ended, never_told}
        assert (await sori.state(never_told))["status"] == "processing"
        assert (await sori.state(young))["status"] == "processing"
        assert (await sori.state(ended))["error"]["code"] == "analysis_timed_out"
    finally:
        await jobs.delete_many({"_id": {"$in": [still, held, young, ended, never_told]}})


async def test_a_job_that_changed_lately_does_not_stand_still_however_old_it_is(store: JobStore, jobs: Any) -> None:
    job_id = await kept(jobs, OLD)
    try:
        await jobs.update_one({"_id": job_id}, {"$set": {"view.updated_at": datetime.now(UTC)}})
        assert job_id not in await standing(store)
    finally:
        await jobs.delete_one({"_id": job_id})


async def test_the_look_uses_the_index_of_the_gateways_lists(store: JobStore, jobs: Any) -> None:
    async def uses() -> int:
        used = {}
        async for index in await jobs.aggregate([{"$indexStats": {}}]):
            used[index["name"]] = int(index["accesses"]["ops"])
        return used["status"]

    before = await uses()
    await standing(store)
    assert await uses() > before
