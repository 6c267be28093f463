"""What the bridge does with a message that could not be handled: how it waits, what is counted, what listeners hear."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analyzer_bridge.errors import AnalysisServerFailedError, AnalysisServerUnavailableError
from contracts import topology
from contracts.events import (
    AnalysisCompleted,
    AnalysisDelayed,
    AnalysisRequested,
    AnalysisWebhookIgnored,
    JobHeld,
    JobPurged,
    JsonObject,
)
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import Broker, World
from tests.unit.stories import RESULT, called_back, stored

SUCCESS: JsonObject = {"status": "success", "result": RESULT}


async def handled(world: World, most: int = 100) -> Broker:
    """Have a stored recording handled until its message is done with."""
    broker = Broker(world.bridge)
    broker.tell(stored())
    await broker.handle_all(most)
    return broker


async def test_a_recording_waits_for_a_server_that_is_away_for_as_long_as_it_takes() -> None:
    world = World(*[AnalysisServerUnavailableError("ConnectError")] * 50)
    broker = await handled(world)
    assert broker.of(AnalysisRequested)
    assert not broker.dead
    assert len(world.server.asked) == 51


async def test_it_waits_in_the_broker_longer_each_time() -> None:
    world = World(*[AnalysisServerUnavailableError("ConnectError")] * 50)
    broker = Broker(world.bridge)
    broker.tell(stored())
    for _ in range(50):
        await broker.handle_next()
    waits = broker.queued[0].waits
    longest = [1, 2, 5, 15, *[60] * 46]
    assert all(most / 2 <= seconds <= most for (_, seconds), most in zip(waits, longest, strict=True))


@pytest.mark.parametrize("failure", [AnalysisServerUnavailableError, AnalysisServerFailedError])
async def test_listeners_are_told_once_that_it_waits(
    failure: type[AnalysisServerUnavailableError | AnalysisServerFailedError],
) -> None:
    broker = await handled(World(*[failure("no")] * 5))
    assert [type(event) for event in broker.published] == [AnalysisDelayed, AnalysisRequested]


async def test_listeners_are_told_although_something_else_failed_first() -> None:
    world = World(ConnectionError("MongoDB is down"), AnalysisServerUnavailableError("ConnectError"))
    broker = await handled(world)
    assert [type(event) for event in broker.published] == [AnalysisDelayed, AnalysisRequested]


async def test_a_server_that_fails_at_a_recording_each_time_has_it_set_aside() -> None:
    world = World(*[AnalysisServerFailedError("answered 500")] * 100)
    broker = await handled(world)
    assert len(world.server.asked) == topology.MAX_ATTEMPTS
    (dead,) = broker.dead
    assert dead.headers[topology.ATTEMPT_HEADER] == topology.MAX_ATTEMPTS
    assert dead.headers[topology.REASON_HEADER] == "analysis_server_failed: answered 500"
    assert broker.of(JobHeld)


@given(st.lists(st.booleans(), min_size=20, max_size=60))
@example([True] * 20 + [False] * 8)
@example([False] * 11 + [True] * 20)
@example([False] * 11 + [True] * 20 + [False])
async def test_absence_uses_no_tries_up_and_failures_are_bounded(absences: list[bool]) -> None:
    """Whatever comes between, it is set aside at the MAX_ATTEMPTS-th failure and no other."""
    answers = [
        AnalysisServerUnavailableError("away") if away else AnalysisServerFailedError("answered 500")
        for away in absences
    ]
    world = World(*answers)
    broker = await handled(world)
    failures = absences.count(False)
    if broker.dead:
        assert failures >= topology.MAX_ATTEMPTS
        assert broker.dead[0].headers[topology.REASON_HEADER].startswith("analysis_server_failed")
    else:
        assert failures < topology.MAX_ATTEMPTS
        assert broker.of(AnalysisRequested)


@given(st.floats(0, 10_000), st.integers(0, 20))
async def test_what_the_server_asked_for_is_waited_as_far_as_the_longest_delay(asked_for: float, before: int) -> None:
    away = [AnalysisServerUnavailableError("away") for _ in range(before)]
    world = World(*away, AnalysisServerUnavailableError("busy", asked_for))
    broker = Broker(world.bridge)
    broker.tell(stored())
    for _ in range(before + 1):
        await broker.handle_next()
    _, seconds = broker.queued[0].waits[-1]
    longest = topology.RETRY_DELAYS[-1].seconds
    assert min(asked_for, longest) <= seconds <= longest


async def test_a_cancelled_job_is_done_with_at_its_next_try() -> None:
    world = World(*[AnalysisServerUnavailableError("ConnectError")] * 100)
    broker = Broker(world.bridge)
    broker.tell(stored())
    await broker.handle_next()
    broker.tell(stories.cancelled())
    await broker.handle_all()
    assert [type(event) for event in broker.published] == [AnalysisDelayed]
    assert not broker.dead


async def test_ends_from_outside_and_late_webhooks_reach_the_bridge() -> None:
    world = World()
    broker = Broker(world.bridge)
    for event in (stored(), called_back(SUCCESS), stories.cancelled(), stories.expired(), called_back(SUCCESS, 2)):
        broker.tell(event)
    await broker.handle_all()
    kinds = [type(event) for event in broker.published]
    assert kinds == [AnalysisRequested, AnalysisCompleted, AnalysisWebhookIgnored]


async def test_a_purge_that_met_a_new_recording_is_told_once_more_and_then_done() -> None:
    world = World()
    broker = Broker(world.bridge)
    broker.tell(stored())
    broker.tell(stories.purged())
    await broker.handle_all()
    (again,) = broker.of(JobPurged)
    broker.tell(again)
    broker.tell(stored())
    await broker.handle_all()
    assert [event.id for event in broker.of(JobPurged)] == [again.id] * 2
