"""Watching deadlines: what is overdue waits to be asked for again or is given up, once this process has consumed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from analyzer_bridge import deadlines
from analyzer_bridge.analysis import Analysis, AnalysisStatus
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.deadlines import CONSUMES_FOR, STOOD_STILL, Deadlines
from analyzer_bridge.room import Room
from contracts import topology
from contracts.events import AnalysisFailed, Event
from tests.support.analyses import Analyses
from tests.support.queues import Queues
from tests.support.waiting import until_true
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import FIRST, Server

STARTED = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


EITHER = pytest.mark.parametrize("attempts", [1, 2], ids=["given up", "asked again"])


class Store(Analyses):
    """The collection with its indexes; making them fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.prepared = self.looks = 0
        self.failures = failures

    async def prepare(self) -> None:
        self._fail()
        self.prepared += 1

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("down")

    async def unannounced(self, limit: int) -> list[Analysis]:
        self.looks += 1
        self._fail()
        return await super().unannounced(limit)


class Clock:
    """A time that passes with each look, and as told besides."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def passes(self, time: timedelta) -> None:
        self.now += time


class Broker(Queues):
    """A broker that is down as often as told, and from which this process has consumed `since`."""

    def __init__(self, failures: int = 0, since: datetime | None = STARTED) -> None:
        super().__init__(routes=False)
        self.since = since
        self._failures = failures

    def consuming_since(self) -> datetime | None:
        return self.since

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        await super().publish(event, redriven=redriven)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOOK_SECONDS", 0.001)


@asynccontextmanager
async def overdue(
    store: Store, broker: Broker, attempts: int, now: Callable[[], datetime] | None = None
) -> AsyncIterator[Room]:
    """One analysis that is overdue, and its deadlines watched."""
    room = Room()
    bridge = Bridge(store, Server(), room, timeout=timedelta(hours=1), attempts=attempts, version="1")
    await bridge.begin(stories.stored(), FIRST)
    store.pass_deadline(stories.JOB_ID)
    watch = Deadlines(bridge, store, broker, room, now=now or Clock())
    watch.start()
    try:
        yield room
    finally:
        await watch.stop()


async def more_looks(store: Store, count: int = 20) -> None:
    before = store.looks
    await until_true(lambda: store.looks >= before + count, "some more looks")


def stands(store: Store) -> tuple[AnalysisStatus, int]:
    return store.of(stories.JOB_ID).status, store.of(stories.JOB_ID).attempt


async def settled(store: Store) -> None:
    await until_true(lambda: bool(store.kept[stories.JOB_ID].announced), "the outcome noted as announced")


async def test_an_overdue_analysis_waits_to_be_asked_for_again_and_somebody_is_woken() -> None:
    store, broker = Store(), Broker()
    async with overdue(store, broker, attempts=2) as room:
        await until_true(lambda: stands(store) == (AnalysisStatus.WAITING, 2), "it waits")
        await room.woken()
        assert room.somebody_waits
    assert broker.published == []
    assert store.prepared == 1
    (due,) = await store.due(datetime.now(UTC), 10, None)
    assert due.job_id == stories.JOB_ID


async def test_an_analysis_that_is_given_up_is_published_and_noted() -> None:
    store, broker = Store(), Broker()
    async with overdue(store, broker, attempts=1):
        await settled(store)
        published = list(broker.published)
    assert [type(event) for event in published] == [AnalysisFailed]


@pytest.mark.parametrize(("of_store", "of_broker"), [(3, 0), (0, 3), (2, 2)])
async def test_outages_only_delay_it(of_store: int, of_broker: int) -> None:
    """The outcome is recorded before it can be published: it must not be lost with the broker away."""
    store, broker = Store(of_store), Broker(of_broker)
    async with overdue(store, broker, attempts=1):
        await settled(store)
        published = {event.id for event in broker.published}
    assert len(published) == 1
    assert isinstance(broker.published[0], AnalysisFailed)


@EITHER
async def test_nothing_is_overdue_while_this_process_does_not_consume(attempts: int) -> None:
    """The webhook may have come while nobody was there to take it."""
    store, broker = Store(), Broker(since=None)
    async with overdue(store, broker, attempts):
        await more_looks(store)
        assert stands(store) == (AnalysisStatus.PENDING, 1)
        broker.since = STARTED
        await until_true(lambda: stands(store)[0] != AnalysisStatus.PENDING, "it is pursued")


@EITHER
async def test_what_waited_in_the_broker_comes_before_anything_is_overdue(attempts: int) -> None:
    """After a start, or an outage: a message may wait in it for the longest retry delay."""
    clock = Clock()
    store, broker = Store(), Broker(since=None)
    async with overdue(store, broker, attempts, clock):
        await more_looks(store, 2 * round(CONSUMES_FOR.total_seconds()))
        broker.since = clock.now
        await until_true(lambda: stands(store)[0] != AnalysisStatus.PENDING, "it is pursued")
        assert clock.now - broker.since >= CONSUMES_FOR


class Watched(Clock):
    """Notes when the collection last failed, and when the analysis was first found pursued."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.failed = self.now
        self.pursued: datetime | None = None

    def __call__(self) -> datetime:
        if self.store.failures:
            self.failed = self.now
        if self.pursued is None and stands(self.store)[0] != AnalysisStatus.PENDING:
            self.pursued = self.now
        return super().__call__()


@EITHER
async def test_what_waited_through_an_outage_of_mongodb_comes_before_anything_is_overdue(attempts: int) -> None:
    """Its webhook lies in a retry queue, for up to the longest delay."""
    store, broker = Store(), Broker()
    clock = Watched(store)
    async with overdue(store, broker, attempts, clock):
        await more_looks(store, 10)
        store.failures = 3
        await until_true(lambda: clock.pursued is not None, "it is pursued")
    assert clock.pursued is not None
    assert clock.pursued - clock.failed >= CONSUMES_FOR


@EITHER
async def test_what_came_while_the_process_stood_still_comes_before_anything_is_overdue(attempts: int) -> None:
    store, broker = Store(), Broker()
    clock = Watched(store)
    async with overdue(store, broker, attempts, clock):
        await more_looks(store, 10)
        clock.passes(STOOD_STILL)
        back = clock.now
        await until_true(lambda: clock.pursued is not None, "it is pursued")
    assert clock.pursued is not None
    assert clock.pursued - back >= CONSUMES_FOR


async def test_an_outcome_that_was_recorded_is_told_by_a_process_that_has_just_started() -> None:
    store, broker = Store(), Broker(since=None)
    async with overdue(store, broker, attempts=1):
        bridge = Bridge(store, Server(), Room(), timeout=timedelta(hours=1), attempts=1, version="1")
        await bridge.pursue(store.of(stories.JOB_ID))
        await settled(store)
    assert [type(event) for event in broker.published] == [AnalysisFailed]


async def test_one_that_cannot_be_told_does_not_keep_others_from_their_turn() -> None:
    store = Store()

    class Deaf(Broker):
        """A broker that takes no outcome."""

        async def publish(self, event: Event, *, redriven: bool = False) -> None:
            if isinstance(event, AnalysisFailed):
                raise ConnectionError("down")
            await super().publish(event, redriven=redriven)

    other = "00000000-0000-4000-8000-000000000003"
    async with overdue(store, Deaf(), attempts=1):
        await until_true(lambda: store.kept[stories.JOB_ID].announced is False, "its outcome recorded")
        bridge = Bridge(store, Server(), Room(), timeout=timedelta(hours=1), attempts=1, version="1")
        await bridge.begin(stories.stored(other), FIRST)
        store.pass_deadline(other)
        await until_true(lambda: store.kept[other].announced is False, "the other's outcome recorded")


async def test_a_hundred_overdue_ones_are_pursued_once_by_two_replicas() -> None:
    store, broker = Store(), Broker()
    server, room = Server(), Room()
    bridge = Bridge(store, server, room, timeout=timedelta(hours=1), attempts=2, version="1")
    jobs = [f"00000000-0000-4000-8000-0000000001{number:02}" for number in range(100)]
    for job_id in jobs:
        await bridge.begin(stories.stored(job_id), FIRST)
        store.pass_deadline(job_id)
    watches = [Deadlines(bridge, store, broker, room, now=Clock()) for _ in range(2)]
    for watch in watches:
        watch.start()
    await until_true(lambda: all(store.of(job_id).waiting for job_id in jobs), "all wait")
    await asyncio.gather(*(watch.stop() for watch in watches))
    assert {store.of(job_id).attempt for job_id in jobs} == {2}


def test_what_waits_for_the_longest_retry_delay_comes_before_anything_is_given_up() -> None:
    assert topology.RETRY_DELAYS[-1].seconds < CONSUMES_FOR.total_seconds()
