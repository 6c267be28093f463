"""Watching deadlines: what is overdue is pursued and published, and noted as announced only once it is safe."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from analyzer_bridge import deadlines
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.deadlines import AFTER_OUTAGE_SECONDS, Deadlines
from contracts import topology
from contracts.events import AnalysisFailed, AnalysisRequested, Event
from tests.support.analyses import Analyses
from tests.support.waiting import until_true
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import Server

LIMIT_SECONDS = 5.0


class Store(Analyses):
    """The collection with its indexes; making them fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.prepared = 0
        self._failures = failures

    async def prepare(self) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        self.prepared += 1


class Broker:
    """A broker that is down as often as told; `took` is set with each event that is safe."""

    def __init__(self, failures: int = 0, *, consuming: bool | Exception = True) -> None:
        self.published: list[Event] = []
        self.took = asyncio.Event()
        self.consuming = consuming
        self.asked = 0
        self._failures = failures

    async def consumes(self) -> bool:
        self.asked += 1
        if isinstance(self.consuming, Exception):
            raise self.consuming
        return self.consuming

    async def publish(self, event: Event) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        self.published.append(event)
        self.took.set()


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(deadlines, "AFTER_START_SECONDS", 0.0)
    monkeypatch.setattr(deadlines, "AFTER_OUTAGE_SECONDS", 0.001)


@asynccontextmanager
async def overdue(store: Store, broker: Broker, attempts: int) -> AsyncIterator[Bridge]:
    """A bridge with one analysis that is overdue, and its deadlines watched."""
    bridge = Bridge(store, Server(), timeout=timedelta(hours=1), attempts=attempts, version="1")
    await bridge.begin(stories.stored())
    store.pass_deadline(stories.JOB_ID)
    watch = Deadlines(bridge, store, broker)
    watch.start()
    try:
        yield bridge
    finally:
        await watch.stop()


@asynccontextmanager
async def watching(store: Store, broker: Broker, attempts: int) -> AsyncIterator[Bridge]:
    """The same, once it has been pursued."""
    async with overdue(store, broker, attempts) as bridge:
        async with asyncio.timeout(LIMIT_SECONDS):
            await broker.took.wait()
        yield bridge


async def more_looks(broker: Broker, count: int = 20) -> None:
    asked = broker.asked
    await until_true(lambda: broker.asked >= asked + count, "some more looks that ask whether it consumes")


async def settled(store: Store) -> None:
    await until_true(lambda: bool(store.kept[stories.JOB_ID].announced), "the outcome noted as announced")


async def test_an_overdue_analysis_is_asked_for_again_once() -> None:
    store, broker = Store(), Broker()
    async with watching(store, broker, attempts=2):
        (event,) = broker.published
    assert isinstance(event, AnalysisRequested)
    assert event.data.attempt == 2
    assert store.prepared == 1


async def test_an_analysis_that_is_given_up_is_published_and_noted() -> None:
    store, broker = Store(), Broker()
    async with watching(store, broker, attempts=1):
        await settled(store)
        published = list(broker.published)
    assert [type(event) for event in published] == [AnalysisFailed]


@pytest.mark.parametrize(("of_store", "of_broker"), [(3, 0), (0, 3), (2, 2)])
async def test_outages_only_delay_it(of_store: int, of_broker: int) -> None:
    """The outcome is recorded before it can be published: it must not be lost with the broker away."""
    store, broker = Store(of_store), Broker(of_broker)
    async with watching(store, broker, attempts=1):
        await settled(store)
        published = {event.id for event in broker.published}
    assert len(published) == 1
    assert isinstance(broker.published[0], AnalysisFailed)


async def test_nothing_is_given_up_just_after_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The webhook may have come while no bridge was there to take it."""
    monkeypatch.setattr(deadlines, "AFTER_START_SECONDS", 3600.0)
    broker = Broker()
    async with overdue(Store(), broker, attempts=1):
        await more_looks(broker)
        assert broker.published == []


@pytest.mark.parametrize("consuming", [False, ConnectionError("down")])
async def test_nothing_is_given_up_while_this_process_does_not_consume(consuming: bool | Exception) -> None:
    broker = Broker(consuming=consuming)
    async with overdue(Store(), broker, attempts=1):
        await more_looks(broker)
        assert broker.published == []
        broker.consuming = True
        async with asyncio.timeout(LIMIT_SECONDS):
            await broker.took.wait()


async def test_nothing_is_given_up_before_what_waited_through_an_outage_of_the_broker_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "AFTER_OUTAGE_SECONDS", 3600.0)
    broker = Broker(consuming=False)
    async with overdue(Store(), broker, attempts=1):
        await more_looks(broker)
        broker.consuming = True
        await more_looks(broker)
        assert broker.published == []


async def test_nothing_is_given_up_before_what_waited_through_an_outage_of_mongodb_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its webhook lies in a retry queue, for up to the longest delay."""
    monkeypatch.setattr(deadlines, "AFTER_OUTAGE_SECONDS", 3600.0)
    broker = Broker()
    async with overdue(Store(failures=1), broker, attempts=1):
        await more_looks(broker)
        assert broker.published == []


async def test_that_a_process_which_starts_does_not_consume_yet_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "AFTER_START_SECONDS", 0.5)
    monkeypatch.setattr(deadlines, "AFTER_OUTAGE_SECONDS", 3600.0)
    broker = Broker(consuming=False)
    async with overdue(Store(), broker, attempts=1):
        await more_looks(broker, 3)
        broker.consuming = True
        async with asyncio.timeout(LIMIT_SECONDS):
            await broker.took.wait()


async def test_it_is_asked_for_again_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "AFTER_START_SECONDS", 3600.0)
    store, broker = Store(), Broker(consuming=ConnectionError("down"))
    async with watching(store, broker, attempts=2):
        assert [type(event) for event in broker.published] == [AnalysisRequested]
    assert broker.asked == 0, "nobody wants to give anything up"


def test_what_waits_for_the_longest_retry_delay_comes_before_anything_is_given_up() -> None:
    assert topology.RETRY_DELAYS[-1].seconds < AFTER_OUTAGE_SECONDS
