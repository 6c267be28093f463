"""Deleting everything of a person: looked at again until nothing that was begun before can come any more."""

from collections.abc import Collection
from datetime import datetime, timedelta

import pytest

from contracts import events
from contracts.job import Job
from gateway.person import erasing
from gateway.person.erasing import Erasing
from tests.support.gateway_stores import Claims, Erasures, Jobs, OwnedJobs
from tests.unit import stories

OWNER, OTHER = "user:" + "a" * 32, "user:" + "b" * 32
LONGEST = timedelta(hours=1)


class Sessions:
    """Whose sessions were ended, and until when they had begun."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, datetime]] = []

    async def end_all(self, owner: str, until: datetime) -> None:
        self.ended.append((owner, until))


class World:
    """An erasing over stand-ins."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs, self.erasures, self.sessions, self.claims = Jobs(*jobs), Erasures(), Sessions(), Claims()
        self.woken = 0
        self.erasing = self.another()

    def another(self) -> Erasing:
        return Erasing(
            self.erasures,
            OwnedJobs(self.jobs),
            self.jobs,
            self.sessions,
            self.claims,
            longest_upload=LONGEST,
            look_soon=self._wake,
        )

    def purging(self) -> Collection[str]:
        return {job_id for job_id, job in self.jobs.kept.items() if job.purge_asked_at is not None}

    def past(self, by: timedelta) -> None:
        """Let the erasures have been asked for so long ago."""
        for erasure, at in list(self.erasures.kept.values()):
            earlier = erasing.Erasure(erasure.owner, erasure.asked_at - by)
            self.erasures.kept[erasure.owner] = (earlier, at - by)

    def _wake(self) -> None:
        self.woken += 1


def job(number: int, owner: str | None = OWNER, began: timedelta = timedelta(minutes=-1)) -> Job:
    made = Job.received(stories.received(f"00000000-0000-4000-8000-{number:012}"), None)
    now = events.now()
    return made.model_copy(update={"owner": owner, "began_at": now + began, "created_at": now})


async def test_all_that_is_the_persons_is_purged_and_nothing_of_anybody_else() -> None:
    mine = [job(1), job(2), job(3).model_copy(update={"began_at": None})]
    world = World(*mine, job(4, OTHER), job(5, None))
    await world.claims.claim("mine", "x", mine[0].job_id)
    await world.claims.claim("other", "x", job(4).job_id)
    asked_at = await world.erasing.ask(OWNER)
    assert world.sessions.ended == [(OWNER, asked_at)], "before the answer"
    await world.erasing.look()
    assert world.purging() == {one.job_id for one in mine}
    assert world.sessions.ended == [(OWNER, asked_at)] * 2
    assert set(world.claims.kept) == {"other"}
    assert world.woken == 1


async def test_what_was_asked_is_done_by_another_gateway_when_the_first_died() -> None:
    world = World(job(1))
    await world.erasing.ask(OWNER)
    await world.another().look()
    assert len(world.purging()) == 1


async def test_an_upload_that_was_under_way_is_purged_when_it_is_a_job_and_a_later_one_stays() -> None:
    world = World()
    await world.erasing.ask(OWNER)
    await world.erasing.look()
    under_way, later = job(1, began=timedelta(seconds=-9)), job(2, began=timedelta(seconds=9))
    for one in (under_way, later):
        await world.jobs.insert(one)
    world.past(timedelta(seconds=5))
    await world.erasing.look()
    assert world.purging() == {under_way.job_id}


async def test_it_is_looked_at_until_no_upload_can_be_under_way_any_more() -> None:
    world = World()
    await world.erasing.ask(OWNER)
    for _ in range(3):
        world.past(timedelta(minutes=2))
        await world.erasing.look()
        (_, at), now = world.erasures.kept[OWNER], events.now()
        assert now < at + timedelta(seconds=1) <= now + erasing.LONGEST_PAUSE + timedelta(seconds=1)
    world.past(LONGEST)
    await world.erasing.look()
    assert world.erasures.kept == {}


async def test_each_look_purges_a_bounded_number_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "JOBS_PER_LOOK", 2)
    monkeypatch.setattr(erasing, "MAX_PURGING", 4)
    world = World(*(job(number) for number in range(6)))
    await world.erasing.ask(OWNER)
    counts = []
    for _ in range(4):
        await world.erasing.look()
        counts.append(len(world.purging()))
    assert counts == [2, 4, 4, 4]
    for job_id in world.purging():
        del world.jobs.kept[job_id]
    await world.erasing.look()
    assert len(world.purging()) == 2


async def test_an_outage_delays_it_only_and_holds_up_no_other() -> None:
    world = World(job(1), job(2, OTHER))
    for owner in (OWNER, OTHER):
        await world.erasing.ask(owner)
    world.jobs.failures = 1
    await world.erasing.look()
    assert len(world.purging()) == 1
    world.past(erasing.FAILURE_PAUSE)
    await world.erasing.look()
    assert len(world.purging()) == 2


async def test_asked_again_while_it_is_looked_at_the_later_request_counts() -> None:
    world = World()
    first = await world.erasing.ask(OWNER)
    seen = world.erasures.kept[OWNER][0]
    await world.erasures.ask(OWNER, first + timedelta(seconds=1))
    await world.erasures.look_again(seen, first + timedelta(days=1))
    await world.erasures.finish(seen)
    erasure, at = world.erasures.kept[OWNER]
    assert erasure.asked_at == at == first + timedelta(seconds=1)
