"""The notifier's collection, and the stand-in that unit tests use in its place: both keep the same promises."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from contracts.events import Event
from contracts.job import Change, Job, apply, changed
from local_stack.stack import Stack
from notifier.jobs import Jobs
from notifier.store import JobStore
from tests.support import notifier_jobs
from tests.support.events import Story

DAY = timedelta(days=1)


class Collection:
    """The jobs, and how a test puts one there."""

    def __init__(self, jobs: Jobs, documents: Any) -> None:
        self.jobs = jobs
        self._documents = documents
        self.ids: list[str] = []

    async def put(self, job: Job) -> Job:
        """Keep a new job; return it as it is read."""
        self.ids.append(job.job_id)
        if isinstance(self.jobs, notifier_jobs.Jobs):
            self.jobs.jobs[job.job_id] = job
        else:
            await self._documents.insert_one(job.model_dump(by_alias=True))
        found = await self.jobs.find(job.job_id)
        assert found is not None
        return found

    async def kept(self, job_id: str, field: str) -> Any:
        """One field of the document, as it lies there."""
        if isinstance(self.jobs, notifier_jobs.Jobs):
            return getattr(self.jobs.jobs[job_id], field)
        return (await self._documents.find_one({"_id": job_id})).get(field)

    async def standing(self, age: timedelta) -> set[str]:
        """Those of this test's jobs that have stood still for so long."""
        now = datetime.now(UTC)
        found = await self.jobs.standing_since(now - age, now - timedelta(hours=2))
        return {job.job_id for job in found} & set(self.ids)


@pytest.fixture(params=["stand-in", "MongoDB"])
async def collection(request: pytest.FixtureRequest, stack: Stack, jobs: Any) -> AsyncIterator[Collection]:
    """The stand-in, then the real one."""
    if request.param == "stand-in":
        yield Collection(notifier_jobs.Jobs(), None)
        return
    mongodb = MongoDB(stack.settings["MONGODB_URL"], MESSAGE_LIMITS)
    real = Collection(JobStore(mongodb), jobs)
    yield real
    await jobs.delete_many({"_id": {"$in": real.ids}})
    mongodb.close()


def story(age: timedelta = timedelta()) -> tuple[Story, Event, Job]:
    """A new job of this age, with what its first event is."""
    told = Story(str(uuid.uuid4()))
    received = told.upload_received(age=age)
    return told, received, Job.received(received, None)


def change_by(job: Job, event: Event) -> Change:
    """What the event changes."""
    change = apply(job, event)
    assert change is not None
    return change


async def test_a_change_is_made_once(collection: Collection) -> None:
    _, received, new = story()
    job = await collection.put(new)
    change = change_by(job, received)
    assert await collection.jobs.update(job, change)
    found = await collection.jobs.find(job.job_id)
    assert found is not None
    assert (found.revision, found.view.progress) == (2, 40)
    assert [line.type for line in found.history] == ["job.created", received.type]


async def test_a_job_that_changed_meanwhile_is_not_changed_by_what_was_read_before(collection: Collection) -> None:
    told, received, new = story()
    job = await collection.put(new)
    assert await collection.jobs.update(job, change_by(job, received))
    assert not await collection.jobs.update(job, change_by(job, told.audio_stored()))
    found = await collection.jobs.find(job.job_id)
    assert found is not None
    assert len(found.history) == 2


async def test_a_change_that_nobody_sees_counts_as_one(collection: Collection) -> None:
    told, received, new = story()
    job = await collection.put(new)
    stored = change_by(job, told.audio_stored())
    assert await collection.jobs.update(job, stored)
    later = changed(job, stored)
    unseen = change_by(later, received)
    assert unseen.view is None
    assert await collection.jobs.update(later, unseen)
    assert not await collection.jobs.update(later, change_by(later, told.analysis_failed()))


async def test_the_gateways_event_is_not_read_and_goes_when_the_job_ends(collection: Collection) -> None:
    told, received, new = story()
    job = await collection.put(new)
    assert job.upload_received is None
    assert await collection.jobs.update(job, change_by(job, received))
    assert await collection.kept(job.job_id, "upload_received") == new.upload_received
    job = changed(job, change_by(job, received))
    assert await collection.jobs.update(job, change_by(job, told.analysis_failed()))
    assert await collection.kept(job.job_id, "upload_received") is None


async def test_a_job_of_which_all_was_removed_is_gone_and_stays_so(collection: Collection) -> None:
    told, received, new = story()
    job = await collection.put(new)
    removed = (told.audio_removed(), told.analysis_removed())
    types = [event.type for event in removed]
    for event in removed:
        await collection.jobs.remove_if_removed(job.job_id, types)
        assert await collection.jobs.find(job.job_id) == job, "there is still something of it"
        change = change_by(job, event)
        assert await collection.jobs.update(job, change)
        job = changed(job, change)
    await collection.jobs.remove_if_removed(job.job_id, types)
    await collection.jobs.remove_if_removed(job.job_id, types)
    assert await collection.jobs.find(job.job_id) is None
    assert not await collection.jobs.update(job, change_by(job, received))
    assert await collection.jobs.find(job.job_id) is None


async def test_what_has_not_moved_for_long_stands_still(collection: Collection) -> None:
    now = datetime.now(UTC)
    lately, before = ({"redriven_at": now - timedelta(hours=hours), "publish_at": now} for hours in (1, 3))
    told_again, told_before, young = [
        await collection.put(story(age)[2].model_copy(update=redriven))
        for age, redriven in ((1.5 * DAY, lately), (1.5 * DAY, before), (timedelta(hours=1), lately))
    ]
    never_told = await collection.put(story(3 * DAY)[2].model_copy(update={"publish_at": now}))
    of_an_earlier_version = await collection.put(story(3 * DAY)[2])
    told, received, new = story(1.5 * DAY)
    held = told.job_held("uploader.upload.received.v1", received).model_copy(update={"time": received.time})
    held_job = await collection.put(changed(new, change_by(new, held)))
    assert await collection.standing(DAY) == {told_again.job_id, held_job.job_id, of_an_earlier_version.job_id}
    assert not await collection.standing(DAY) & {told_before.job_id, never_told.job_id, young.job_id}


async def test_a_job_that_stands_still_is_told_of_with_its_metadata(collection: Collection) -> None:
    metadata = '{"a.b":{"$set":1180591620717411303424}}'
    job = await collection.put(story(1.5 * DAY)[2].model_copy(update={"metadata_json": metadata}))
    now = datetime.now(UTC)
    (standing,) = [one for one in await collection.jobs.standing_since(now - DAY, now) if one.job_id == job.job_id]
    assert standing.recording.metadata == job.metadata == {"a.b": {"$set": 2**70}}


async def test_the_revisions_of_many_jobs_are_read_at_once(collection: Collection) -> None:
    (_, received, new), (_, _, other) = story(), story()
    job = await collection.put(new)
    await collection.put(other)
    assert await collection.jobs.update(job, change_by(job, received))
    asked = {new.job_id, other.job_id, str(uuid.uuid4())}
    assert await collection.jobs.revisions(asked) == {new.job_id: 2, other.job_id: 1}
