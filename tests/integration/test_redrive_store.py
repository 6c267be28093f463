"""What is told again, and the webhooks that are kept: MongoDB and the stand-ins of the unit tests keep one promise."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.events import Event, UploadReceived
from contracts.job import Job, apply
from gateway.jobs.documents import Jobs
from gateway.jobs.removals import Ending
from gateway.jobs.store import JobStore
from gateway.redrive.documents import Redrives
from gateway.redrive.store import RedriveStore
from gateway.redrive.timing import StandingJob, Wait
from gateway.webhook.kept import KeptWebhooks
from gateway.webhook.store import KeptWebhookStore
from local_stack.stack import Stack
from notifier.jobs import Jobs as NotifiersJobs
from notifier.store import JobStore as NotifiersStore
from tests.support import gateway_stores, notifier_jobs
from tests.support.databases import own_database, profiled
from tests.support.events import Story

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@dataclass
class World:
    """The jobs as the gateway's two stores and the notifier's see them, and the kept webhooks."""

    jobs: Jobs
    redrives: Redrives
    notifiers: NotifiersJobs
    webhooks: KeptWebhooks

    async def job(self, publish_at: datetime | None, *events: Event, job_id: str | None = None) -> str:
        """A job that is looked at then, after these events."""
        story = Story(job_id or str(uuid.uuid4()))
        assert await self.jobs.insert(Job.received(story.upload_received(), None, publish_at=publish_at))
        await self.happens(story.job_id, *events)
        return story.job_id

    async def happens(self, job_id: str, *events: Event) -> None:
        for event in events:
            job = await self.notifiers.find(job_id)
            assert job is not None
            change = apply(job, event)
            assert change is not None
            assert await self.notifiers.update(job, change)

    async def due(self, *, received: bool = False, now: datetime = NOW) -> list[StandingJob]:
        return await self.redrives.due(now, received=received, limit=10)

    async def ids_due(self, *, received: bool = False, now: datetime = NOW) -> list[str]:
        return [job.job_id for job in await self.due(received=received, now=now)]


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own on the stack's server."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture
async def real(address: str) -> AsyncIterator[World]:
    """The stores over MongoDB."""
    mongodb = MongoDB(address, REQUEST_LIMITS)
    world = World(JobStore(mongodb), RedriveStore(mongodb), NotifiersStore(mongodb), KeptWebhookStore(mongodb))
    await world.redrives.prepare()
    await world.webhooks.prepare()
    yield world
    mongodb.close()


@pytest.fixture(params=["in memory", "MongoDB"])
def world(request: pytest.FixtureRequest, real: World) -> World:
    """The stand-ins, then the real ones."""
    if request.param == "MongoDB":
        return real
    jobs, notifiers = gateway_stores.Jobs(), notifier_jobs.Jobs()
    notifiers.jobs = jobs.kept
    return World(jobs, gateway_stores.Redrives(jobs), notifiers, gateway_stores.KeptWebhooks())


async def test_jobs_are_due_when_their_time_has_come_the_longest_due_first(world: World) -> None:
    second = await world.job(NOW - SECOND)
    first = await world.job(NOW - 2 * SECOND)
    await world.job(NOW + SECOND)
    await world.job(None)
    assert await world.ids_due() == [first, second]
    assert await world.redrives.due(NOW, received=False, limit=1) == (await world.due())[:1]


async def test_jobs_that_subscribers_have_seen_are_told_apart_from_others(world: World) -> None:
    unseen = await world.job(NOW)
    seen = await world.job(NOW)
    await world.happens(seen, Story(seen).upload_received())
    half_seen = await world.job(NOW)
    await world.happens(half_seen, Story(half_seen).audio_stored())
    assert set(await world.ids_due()) == {unseen, half_seen}
    assert await world.ids_due(received=True) == [seen]


async def test_a_due_job_says_where_it_stands(world: World) -> None:
    job_id = await world.job(NOW)
    story = Story(job_id)
    received, requested = story.upload_received(), story.analysis_requested()
    await world.happens(job_id, received, requested)
    (job,) = await world.due(received=True)
    assert (job.stage, job.progress, job.redrives, job.redriven_at) == ("waiting", 90, 0, None)
    assert job.updated_at == requested.time
    assert job.analysis_deadline is not None
    assert abs(job.analysis_deadline - requested.data.deadline) < timedelta(milliseconds=1)


@pytest.mark.parametrize("end", ["analysis_failed", "analysis_completed", "job_cancelled"])
async def test_an_ended_job_is_never_due_and_cannot_be_claimed(world: World, end: str) -> None:
    job_id = await world.job(NOW)
    (job,) = await world.due()
    await world.happens(job_id, getattr(Story(job_id), end)())
    assert await world.ids_due() == []
    assert await world.redrives.claim(job, NOW + SECOND) is None
    assert await world.redrives.longest_due() is None


async def test_of_many_that_claim_a_job_at_once_one_gets_its_event(world: World) -> None:
    job_id = await world.job(NOW)
    (job,) = await world.due()
    texts = await asyncio.gather(*(world.redrives.claim(job, NOW + n * SECOND) for n in range(1, 9)))
    (text,) = [text for text in texts if text is not None]
    assert UploadReceived.model_validate_json(text).subject == job_id
    assert await world.ids_due() == []


async def test_a_job_that_was_told_is_looked_at_later(world: World) -> None:
    job_id = await world.job(NOW)
    (job,) = await world.due()
    claimed = NOW + 15 * SECOND
    assert await world.redrives.claim(job, claimed)
    await world.redrives.told(job_id, claimed, 3, NOW, NOW + 60 * SECOND)
    assert await world.ids_due(now=NOW + 59 * SECOND) == []
    (later,) = await world.due(now=NOW + 60 * SECOND)
    assert (later.redrives, later.redriven_at) == (3, NOW)
    assert await world.redrives.longest_due() == NOW + 60 * SECOND


async def test_a_job_that_could_not_be_told_is_due_again_soon(world: World) -> None:
    job_id = await world.job(NOW)
    (job,) = await world.due()
    assert await world.redrives.claim(job, NOW + 15 * SECOND)
    await world.redrives.hurry(job_id, NOW + 15 * SECOND, NOW + SECOND)
    (again,) = await world.due(now=NOW + SECOND)
    assert (again.redrives, again.redriven_at) == (0, None)


async def test_what_is_noted_of_a_claim_that_is_somebody_elses_by_now_counts_for_nothing(world: World) -> None:
    job_id = await world.job(NOW)
    (job,) = await world.due()
    assert await world.redrives.claim(job, NOW + 15 * SECOND)
    await world.jobs.ask_end(Ending.CANCEL, [job_id], NOW)
    await world.redrives.told(job_id, NOW + 15 * SECOND, 1, NOW, NOW + 90 * SECOND)
    await world.redrives.hurry(job_id, NOW + 15 * SECOND, NOW + 90 * SECOND)
    await world.redrives.postpone([(job, Wait(NOW + 90 * SECOND, 7))])
    (removal,) = await world.redrives.removals(Ending.CANCEL, NOW, 10)
    assert (removal.publish_at, removal.redrives) == (NOW, 0)


async def test_jobs_are_postponed_together(world: World) -> None:
    ids = [await world.job(NOW + n * timedelta(milliseconds=1)) for n in range(3)]
    jobs = await world.due(now=NOW + SECOND)
    await world.redrives.postpone([(job, Wait(NOW + n * 10 * SECOND, n)) for n, job in enumerate(jobs, 1)])
    found = await world.due(now=NOW + 20 * SECOND)
    assert [(job.job_id, job.redrives) for job in found] == [(ids[0], 1), (ids[1], 2)]


async def test_a_job_that_is_to_end_is_not_told_again_but_its_end_is(world: World) -> None:
    cancelled, purged, both = [await world.job(NOW - SECOND) for _ in range(3)]
    jobs = await world.due()
    await world.jobs.ask_end(Ending.CANCEL, [cancelled, both], NOW)
    await world.jobs.ask_end(Ending.PURGE, [purged, both], NOW)
    assert await world.ids_due() == []
    assert [await world.redrives.claim(job, NOW + SECOND) for job in jobs] == [None] * 3
    cancels = await world.redrives.removals(Ending.CANCEL, NOW, 10)
    purges = await world.redrives.removals(Ending.PURGE, NOW, 10)
    assert [removal.job_id for removal in cancels] == [cancelled]
    assert {removal.job_id for removal in purges} == {purged, both}
    assert (cancels[0].recording.token_id, cancels[0].traceparent) == (
        "a-token",
        Story(cancelled).upload_received().traceparent,
    )


async def test_of_many_that_claim_a_removal_at_once_one_wins_and_none_once_it_is_done(world: World) -> None:
    job_id = await world.job(NOW)
    await world.jobs.ask_end(Ending.CANCEL, [job_id], NOW)
    (removal,) = await world.redrives.removals(Ending.CANCEL, NOW, 10)
    won = await asyncio.gather(*(world.redrives.claim_removal(removal, NOW + n * SECOND) for n in range(1, 9)))
    assert won.count(True) == 1
    await world.happens(job_id, Story(job_id).job_cancelled())
    assert await world.redrives.removals(Ending.CANCEL, NOW + 60 * SECOND, 10) == []


async def test_an_ended_job_cannot_be_cancelled_and_is_purged_until_it_is_gone(world: World) -> None:
    job_id = await world.job(NOW)
    await world.happens(job_id, Story(job_id).analysis_failed())
    await world.jobs.ask_end(Ending.CANCEL, [job_id], NOW)
    assert await world.redrives.removals(Ending.CANCEL, NOW, 10) == []
    await world.jobs.ask_end(Ending.PURGE, [job_id], NOW)
    (removal,) = await world.redrives.removals(Ending.PURGE, NOW, 10)
    assert await world.redrives.claim_removal(removal, NOW + 15 * SECOND)
    await world.redrives.told(job_id, NOW + 15 * SECOND, 1, NOW, NOW + 60 * SECOND)
    (again,) = await world.redrives.removals(Ending.PURGE, NOW + 60 * SECOND, 10)
    assert again.redrives == 1


async def test_asking_for_the_same_end_again_changes_nothing(world: World) -> None:
    job_id = await world.job(NOW)
    for at in (NOW, NOW + SECOND):
        await world.jobs.ask_end(Ending.CANCEL, [job_id], at)
    (removal,) = await world.redrives.removals(Ending.CANCEL, NOW + SECOND, 10)
    assert removal.publish_at == NOW


async def test_webhooks_are_kept_once_and_come_back_in_order(world: World) -> None:
    made = [Story(str(uuid.uuid4())).analysis_webhook_received() for _ in range(3)]
    for webhook in (*made, made[0]):
        await world.webhooks.keep(webhook)
    now = datetime.now(UTC) + SECOND
    assert await world.webhooks.due(now, 2) == made[:2]
    await world.webhooks.remove([made[0].id])
    await world.webhooks.forget([made[1].subject])
    assert await world.webhooks.due(now, 9) == made[2:]


async def test_other_webhooks_of_a_job_can_be_held_back(world: World) -> None:
    first, other = [Story(str(uuid.uuid4())).analysis_webhook_received() for _ in range(2)]
    second = first.model_copy(update={"id": str(uuid.uuid4())})
    for webhook in (first, second, other):
        await world.webhooks.keep(webhook)
    now = datetime.now(UTC) + SECOND
    await world.webhooks.hold_back_others([first], now + 10 * SECOND)
    assert await world.webhooks.due(now, 9) == [first, other]
    assert second in await world.webhooks.due(now + 10 * SECOND, 9)


async def test_every_look_is_read_from_an_index(real: World, address: str) -> None:
    ids = [await real.job(NOW + n * SECOND) for n in range(300)]
    await real.jobs.ask_end(Ending.CANCEL, ids[:5], NOW)
    await real.jobs.ask_end(Ending.PURGE, ids[5:10], NOW)
    async with profiled(address) as entries:
        await real.due()
        await real.due(received=True)
        await real.redrives.removals(Ending.CANCEL, NOW, 10)
        await real.redrives.removals(Ending.PURGE, NOW, 10)
        await real.redrives.longest_due()
        await real.webhooks.due(NOW, 10)
    looks: list[dict[str, Any]] = [entry for entry in entries if "planSummary" in entry]
    assert len(looks) == 6
    assert all(entry["planSummary"].startswith("IXSCAN") for entry in looks), [one["planSummary"] for one in looks]
    assert all(entry["docsExamined"] <= 20 for entry in looks), [one["docsExamined"] for one in looks]


async def test_an_ended_job_is_in_no_index_of_what_is_due(real: World, address: str) -> None:
    job_id = await real.job(NOW)
    await real.happens(job_id, Story(job_id).analysis_failed())
    async with profiled(address) as entries:
        await real.due()
        await real.redrives.longest_due()
    assert [entry["keysExamined"] for entry in entries if "planSummary" in entry] == [0, 0]
