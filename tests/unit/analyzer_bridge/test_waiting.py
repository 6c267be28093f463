"""Asking for what waits: owners in turn, as far as there is room, on while there is, no more than the server bears."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analyzer_bridge import room as room_module
from analyzer_bridge import waiting as waiting_module
from analyzer_bridge.analysis import Analysis, AnalysisStatus
from analyzer_bridge.bridge import PAUSE_SECONDS
from analyzer_bridge.errors import (
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from analyzer_bridge.room import AFTER_A_REST
from analyzer_bridge.waiting import AT_ONCE, Waiting
from contracts.events import (
    AnalysisDelayed,
    AnalysisFailed,
    AnalysisRequested,
    AnalysisWebhookReceived,
    Event,
    JobCancelled,
    JsonObject,
)
from tests.support.analyses import Analyses
from tests.support.queues import Queues
from tests.support.waiting import until_true
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import FIRST, REDRIVEN, World
from tests.unit.stories import RESULT, called_back, stored

SUCCESS: JsonObject = {"status": "success", "result": RESULT}
A, B = "user:" + "a" * 32, "user:" + "b" * 32
BEGAN = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def job(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def busy(seconds: float | None = None) -> AnalysisServerBusyError:
    return AnalysisServerBusyError("answered 503", seconds)


class Clock:
    """The time by which the room measures the server's rest; it passes when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(room_module, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Broker(Queues):
    """A broker that is down as often as told."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(routes=False)
        self._failures = failures

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        await super().publish(event, redriven=redriven)


async def wait(world: World, *numbers: int, owner: str | None = None) -> None:
    """Have an owner's analyses wait, each older the lower its number is."""
    for number in numbers:
        await world.analyses.insert(
            Analysis(
                job(number),
                stories.TRACEPARENT,
                token_id=stories.TOKEN_ID,
                s3_url=stories.S3_URL,
                owner=owner,
                waiting=True,
                deadline=datetime.now(UTC),
                created_at=BEGAN + timedelta(seconds=number),
            )
        )


@asynccontextmanager
async def asking(
    world: World, broker: Broker | None = None, *, room: room_module.Room | None = None
) -> AsyncIterator[Waiting]:
    """Whoever asks for what waits, woken once."""
    room = world.room if room is None else room
    bridge = world.bridge if room is world.room else world.replica(room=room)
    waiting = Waiting(bridge, world.analyses, world.server, broker or Broker(), room)
    waiting.start()
    room.wake()
    try:
        yield waiting
    finally:
        await waiting.stop(5.0)


async def asked(world: World, *numbers: int) -> None:
    """Wait until just these were asked for, in this order."""
    expected = [job(number) for number in numbers]
    await until_true(lambda: len(world.server.asked) >= len(expected), f"{expected} asked for")
    await looked(world)
    assert [one[0] for one in world.server.asked] == expected


async def looked(world: World) -> None:
    """Have a look taken, and wait for its end: what it might have asked for was asked for."""
    turns = world.analyses.turns
    world.room.wake()
    await until_true(lambda: world.analyses.turns > turns, "a look")
    for _ in range(100):
        await asyncio.sleep(0)


def in_flight(world: World) -> int:
    return sum(kept.status == AnalysisStatus.PENDING for kept in world.analyses.kept.values())


def ended(number: int) -> AnalysisWebhookReceived:
    return AnalysisWebhookReceived.model_validate(called_back(SUCCESS).model_dump() | {"subject": job(number)})


async def test_what_waits_is_asked_for_oldest_first_and_told() -> None:
    world, broker = World(), Broker()
    await wait(world, 3, 1, 2)
    async with asking(world, broker):
        await asked(world, 1, 2, 3)
    told = [(event.subject, type(event)) for event in broker.published]
    assert sorted(told) == [(job(number), AnalysisRequested) for number in (1, 2, 3)]
    for event in broker.published:
        assert isinstance(event, AnalysisRequested)
        assert event.data.deadline == world.analyses.of(event.subject).deadline
    assert in_flight(world) == 3


async def test_what_is_not_due_is_not_asked_for() -> None:
    world = World()
    await wait(world, 1, 2)
    kept = world.analyses.kept[job(1)]
    kept.analysis = replace(kept.analysis, deadline=datetime.now(UTC) + timedelta(hours=1))
    async with asking(world):
        await asked(world, 2)
    assert not world.room.somebody_waits, "a recording that the server failed with holds up nobody"


async def test_it_goes_on_while_there_is_more_and_asks_for_so_many_at_once() -> None:
    world = World()
    await wait(world, *range(3 * AT_ONCE + 1))
    async with asking(world):
        await asked(world, *range(3 * AT_ONCE + 1))
    assert world.server.most == AT_ONCE
    assert not world.room.somebody_waits


async def test_no_more_are_in_flight_than_the_limit_and_each_end_makes_room_for_the_next() -> None:
    world = World(limit=3)
    await wait(world, *range(6))
    async with asking(world):
        await asked(world, 0, 1, 2)
        assert world.room.somebody_waits
        for number in range(3):
            await world.bridge.finish(ended(number))
            await asked(world, *range(4 + number))
            assert in_flight(world) == 3
        assert not world.room.somebody_waits


async def test_a_recording_takes_its_place_behind_those_that_wait() -> None:
    world = World(limit=1)
    await wait(world, 1, 2)
    async with asking(world):
        await asked(world, 1)
        assert isinstance(await world.bridge.begin(stored(job(3)), FIRST), AnalysisDelayed)
        for number in (1, 2):
            await world.bridge.finish(ended(number))
            await asked(world, *range(1, number + 2))
        await world.bridge.finish(ended(3))
        await looked(world)
        recording = stored(job(4), digest="0" * 64)
        assert isinstance(await world.bridge.begin(recording, FIRST), AnalysisRequested), "nobody waits any more"


async def test_a_recording_that_comes_while_older_ones_wait_is_asked_for_after_them() -> None:
    """Whatever room there is: the next look asks for the oldest."""
    world = World(limit=2)
    await wait(world, 1)
    world.room.left_over(True)
    assert isinstance(await world.bridge.begin(stored(job(2)), FIRST), AnalysisDelayed)
    assert world.server.asked == []
    async with asking(world):
        await asked(world, 1, 2)


async def test_the_end_of_one_that_was_not_asked_for_makes_no_room() -> None:
    world = World(limit=1)
    for number in (1, 2):
        await world.bridge.begin(stored(job(number)), FIRST)
    await world.bridge.finish(ended(2))
    assert world.room.free == 0
    await world.bridge.finish(ended(1))
    assert world.room.free == 1


async def test_what_is_told_again_takes_no_place() -> None:
    world = World(limit=2)
    for _ in range(5):
        await world.bridge.begin(stored(job(1)), REDRIVEN)
    assert world.room.free == 1


async def test_without_room_a_recording_waits_until_one_ends() -> None:
    world = World(limit=2)
    async with asking(world):
        for number in (1, 2):
            assert isinstance(await world.bridge.begin(stored(job(number)), FIRST), AnalysisRequested)
        for number in (3, 4):
            assert isinstance(await world.bridge.begin(stored(job(number)), FIRST), AnalysisDelayed)
        await looked(world)
        await world.bridge.finish(ended(2))
        await asked(world, 1, 2, 3)


@pytest.mark.parametrize("rounds", range(3))
async def test_recordings_that_come_at_once_do_not_exceed_the_limit(rounds: int) -> None:
    world = World(limit=4)
    numbers = range(20)
    async with asking(world):
        await asyncio.gather(*(world.bridge.begin(stored(job(number)), FIRST) for number in numbers))
        for number in numbers[: 4 * rounds]:
            await world.bridge.finish(ended(number))
            await looked(world)
        assert in_flight(world) <= 4


async def test_replicas_share_the_limit_by_counting() -> None:
    world = World(limit=4)
    other = room_module.Room(4)
    await wait(world, *range(10))
    async with asking(world):
        await asked(world, 0, 1, 2, 3)
        await other.count(world.analyses.count_asked)
        async with asking(world, room=other):
            await looked(world)
            assert len(world.server.asked) == 4
        await world.bridge.finish(ended(0))
        await asked(world, 0, 1, 2, 3, 4)


async def test_owners_are_asked_for_in_turn_and_each_ones_oldest_first() -> None:
    world = World(limit=1)
    await wait(world, *range(1, 9), owner=A)
    async with asking(world):
        await asked(world, 1)
        await world.bridge.finish(ended(1))
        await asked(world, 1, 2)
        await wait(world, 11, 12, owner=B)
        await wait(world, 21)
        order = [1, 2]
        # B follows A, those without an owner are one, and nobody goes without.
        for number in (11, 21, 3, 12, 4, 5):
            await world.bridge.finish(ended(order[-1]))
            order.append(number)
            await asked(world, *order)


@pytest.mark.parametrize("replicas", [1, 2])
async def test_one_recording_behind_hundreds_of_another_owners_is_soon_asked_for(replicas: int) -> None:
    world = World(limit=8)
    rooms = [world.room, *(room_module.Room(8) for _ in range(replicas - 1))]
    await wait(world, *range(500), owner=A)
    async with contextlib.AsyncExitStack() as stack:
        for room in rooms:
            await room.count(world.analyses.count_asked)
            await stack.enter_async_context(asking(world, room=room))
        await until_true(lambda: in_flight(world) >= 8, "as many as there is room for")
        await wait(world, 1000, owner=B)
        for number in range(2):
            await world.bridge.finish(ended(int(world.server.asked[number][0][-12:])))
            await looked(world)
    assert job(1000) in [one[0] for one in world.server.asked[8:]]


@pytest.mark.parametrize(("retry_after", "seconds"), [(None, PAUSE_SECONDS), (300.0, 300.0)])
async def test_a_busy_server_is_given_the_time_that_it_asks_for(
    clock: Clock, retry_after: float | None, seconds: float
) -> None:
    world, broker = World(None, busy(retry_after), limit=1), Broker()
    await wait(world, 1, 2, 3)
    async with asking(world, broker):
        await asked(world, 1)
        await world.bridge.finish(ended(1))
        await asked(world, 1, 2)
        assert world.room.rests
        assert isinstance(await world.bridge.begin(stored(job(4)), FIRST), AnalysisDelayed)
        clock.now += seconds - 1
        await asked(world, 1, 2)
        clock.now += 1
        world.analyses.pass_deadline(job(2))
        world.room.wake()
        await asked(world, 1, 2, 2)
    assert [type(event) for event in broker.published] == [AnalysisRequested] * 2, "that it waits was told before"


async def test_what_a_busy_server_bears_is_found_and_used(clock: Clock) -> None:
    """It has room for three, and nobody told; those that it did not take on keep their places."""
    world, ends = World(), list[str]()
    world.server.room = lambda: len(world.server.asked) - world.server.not_taken - len(ends) <= 3
    await wait(world, *range(2 * AT_ONCE))
    async with asking(world):
        await until_true(lambda: in_flight(world) == 3 and world.server.open == 0, "as many as it bears")
        await looked(world)
        refused = world.server.not_taken
        assert refused <= AT_ONCE
        for _ in range(10):
            under_way = [one for one, kept in world.analyses.kept.items() if kept.status == AnalysisStatus.PENDING]
            ends.append(under_way[0])
            await world.bridge.finish(ended(int(ends[-1][-12:])))
            await until_true(lambda: in_flight(world) == 3, "another one in its place")
            await looked(world)
        assert world.server.not_taken == refused, "none in vain"
        clock.now += PAUSE_SECONDS
        world.server.room = None
        world.room.wake()
        left = 2 * AT_ONCE - len(ends)
        await until_true(lambda: in_flight(world) == left, "all that are left, now that it bears more")


async def test_those_not_begun_yet_when_the_server_is_busy_are_not_asked_for(clock: Clock) -> None:
    world = World(*[busy(60.0)] * 100)
    await wait(world, *range(3 * AT_ONCE))
    async with asking(world):
        await until_true(lambda: world.room.rests, "a rest")
        await looked(world)
        assert len(world.server.asked) <= AT_ONCE
        assert clock.now == 1000.0


async def test_after_its_rest_a_server_is_asked_little_until_it_takes_one_on(clock: Clock) -> None:
    """What it is asked while it is busy must not grow with what waits."""
    world = World(*[busy(60.0)] * (1 + AFTER_A_REST))
    assert isinstance(await world.bridge.begin(stored(job(0)), FIRST), AnalysisDelayed)
    await wait(world, *range(1, 3 * AT_ONCE))
    async with asking(world):
        clock.now += 60.0
        world.room.wake()
        await until_true(lambda: len(world.server.asked) > 1, "the first few")
        await looked(world)
        assert len(world.server.asked) == 1 + AFTER_A_REST
        clock.now += 60.0
        world.room.wake()
        await until_true(lambda: in_flight(world) == 3 * AT_ONCE - 1 - AFTER_A_REST, "all that are due")


async def test_a_recording_that_the_server_cannot_bear_does_not_hold_up_the_others() -> None:
    """It drops the connection each time; and there is room for one at once."""
    world = World(AnalysisServerUnavailableError("RemoteProtocolError"), limit=1)
    await wait(world, 1, 2)
    async with asking(world):
        await asked(world, 1, 2)


async def test_a_recording_that_the_server_fails_with_does_not_hold_up_the_others() -> None:
    world = World(AnalysisServerFailedError("answered 500"), limit=1)
    await wait(world, 1, 2)
    async with asking(world):
        await asked(world, 1, 2)


async def test_a_server_that_is_away_is_not_asked_and_health_says_how_many_wait() -> None:
    world = World()
    world.server.away_seconds = 3.0
    await wait(world, 1, 2)
    async with asking(world) as waiting:
        await looked(world)
        assert world.server.asked == []
        assert world.analyses.writes == 2, "waiting costs no change of a document"
        assert waiting.warnings() == ["2 recordings wait for the analysis server"]
        world.server.away_seconds = 0.0
        world.room.wake()
        await asked(world, 1, 2)
        assert waiting.warnings() == []


async def test_no_more_are_counted_than_somebody_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "COUNTED", 2)
    world = World()
    world.server.away_seconds = 3.0
    await wait(world, 1, 2, 3)
    async with asking(world) as waiting:
        await looked(world)
        assert waiting.warnings() == ["2 or more recordings wait for the analysis server"]


async def test_one_request_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "ROUND_SECONDS", 0.1)
    world, going = World(), asyncio.Event()

    async def hang() -> None:
        if len(world.server.asked) == 1:
            await going.wait()

    world.server.meanwhile = hang
    await wait(world, *range(3 * AT_ONCE))
    async with asking(world):
        await asked(world, *range(3 * AT_ONCE))
        going.set()
        await until_true(lambda: in_flight(world) == 3 * AT_ONCE, "the one that hung")


async def test_what_is_refused_after_it_waited_is_told_and_noted() -> None:
    world, broker = World(AnalysisRefusedError("answered 400"), limit=1), Broker()
    await wait(world, 1, 2)
    async with asking(world, broker):
        await asked(world, 1, 2)
        await until_true(lambda: len(broker.published) == 2, "both told")
    assert {event.subject: type(event) for event in broker.published} == {
        job(1): AnalysisFailed,
        job(2): AnalysisRequested,
    }
    assert world.analyses.kept[job(1)].announced


async def test_a_refusal_that_could_not_be_told_is_left_to_the_next_look() -> None:
    world = World(AnalysisRefusedError("answered 400"))
    await wait(world, 1)
    async with asking(world, Broker(failures=1)):
        await asked(world, 1)
    (unannounced,) = await world.analyses.unannounced(10)
    assert unannounced.job_id == job(1)


async def test_two_replicas_ask_once_for_each() -> None:
    world = World()
    await wait(world, *range(50))
    other = room_module.Room()
    async with asking(world), asking(world, room=other):
        await until_true(lambda: in_flight(world) == 50, "all asked for")
    assert sorted(one[0] for one in world.server.asked) == [job(number) for number in range(50)]


async def test_what_a_killed_process_was_asking_for_is_asked_for_again_after_its_lease() -> None:
    world, going = World(), asyncio.Event()

    async def hang() -> None:
        await going.wait()

    world.server.meanwhile = hang
    await wait(world, 1)
    (due,) = await world.due()
    killed = asyncio.create_task(world.replica().ask_waiting(due))
    await until_true(lambda: world.server.open == 1, "it is being asked for")
    killed.cancel()
    await asyncio.wait([killed])
    world.server.meanwhile = None
    async with asking(world):
        await looked(world)
        assert len(world.server.asked) == 1, "its lease is not over"
        world.analyses.pass_deadline(job(1))
        world.room.wake()
        await asked(world, 1, 1)
    assert {one[3] for one in world.server.asked} == {1}, "that uses no attempt up"


async def test_a_lease_that_ran_out_while_it_was_asked_for_leaves_one_in_flight() -> None:
    world = World(limit=5)

    async def run_out() -> None:
        world.server.meanwhile = None
        world.analyses.pass_deadline(job(1))
        (again,) = await world.due()
        await world.replica().ask_waiting(again)

    world.server.meanwhile = run_out
    await wait(world, 1)
    (due,) = await world.due()
    assert isinstance(await world.bridge.ask_waiting(due), AnalysisRequested)
    assert in_flight(world) == 1


async def test_what_is_being_asked_for_when_the_process_is_told_to_stop_ends_as_usual() -> None:
    world, broker, going = World(), Broker(), asyncio.Event()

    async def hang() -> None:
        await going.wait()

    world.server.meanwhile = hang
    await wait(world, 1)
    async with asking(world, broker) as waiting:
        await until_true(lambda: world.server.open == 1, "it is being asked for")
        stopping = asyncio.create_task(waiting.stop(5.0))
        going.set()
        await stopping
        assert [type(event) for event in broker.published] == [AnalysisRequested]
        await wait(world, 2)
        world.room.wake()
    assert len(world.server.asked) == 1


class Down(Analyses):
    """A collection that does not say what is due, as often as told."""

    outages = 3

    async def due(self, now: datetime, limit: int, after: str | None) -> list[Analysis]:
        if self.outages:
            self.outages -= 1
            raise ConnectionError("down")
        return await super().due(now, limit, after)


async def test_an_outage_of_the_store_only_delays_it() -> None:
    world = World()
    world.analyses = Down()
    world.bridge = world.replica(room=world.room)
    await wait(world, 1)

    def asked_when_woken() -> bool:
        world.room.wake()
        return len(world.server.asked) == 1

    async with asking(world):
        await until_true(asked_when_woken, "it is asked for")


def cancel(world: World) -> Coroutine[Any, Any, object]:
    event = stories.cancelled()
    assert isinstance(event, JobCancelled)
    return world.replica().stop(event)


ENDS: dict[str, Callable[[World], Coroutine[Any, Any, object]]] = {
    "cancelled": cancel,
    "purged": lambda world: world.replica().forget(stories.purged()),
    "called back": lambda world: world.replica().finish(called_back(SUCCESS)),
}


@pytest.mark.parametrize(
    "answer", [None, busy(), AnalysisServerFailedError("answered 500"), AnalysisRefusedError("no")]
)
@pytest.mark.parametrize("end", ENDS)
async def test_one_that_ends_while_it_is_asked_for_stays_ended_and_leaves_its_place(
    end: str, answer: Exception | None
) -> None:
    world = World(answer, limit=3)
    world.server.away_seconds = 3.0
    await world.bridge.begin(stored(), FIRST)
    world.server.meanwhile = lambda: ENDS[end](world)
    told = await world.ask_waiting()
    assert not isinstance(told, AnalysisRequested | AnalysisDelayed | AnalysisFailed)
    assert world.analyses.of(stories.JOB_ID).outcome is not None
    assert await world.due() == []
    assert in_flight(world) == 0
    assert world.room.rests or world.room.free == 3
