"""What the bridge does with its messages: each is done with at once, whatever the analysis server answers."""

from collections.abc import Callable

import pytest

from analyzer_bridge.errors import AnalysisServerBusyError, AnalysisServerFailedError, AnalysisServerUnavailableError
from contracts import topology
from contracts.events import (
    AnalysisCompleted,
    AnalysisDelayed,
    AnalysisRemoved,
    AnalysisRequested,
    AnalysisWebhookIgnored,
    Event,
    JobPurged,
    JsonObject,
)
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import Broker, World
from tests.unit.stories import RESULT, called_back, stored

SUCCESS: JsonObject = {"status": "success", "result": RESULT}


def kinds(broker: Broker) -> list[type[Event]]:
    return [type(event) for event in broker.published]


@pytest.mark.parametrize(
    "failure",
    [
        lambda: AnalysisServerUnavailableError("ConnectError"),
        lambda: AnalysisServerBusyError("answered 503", 300.0),
        lambda: AnalysisServerFailedError("answered 500"),
    ],
    ids=["away", "busy", "failed"],
)
async def test_nothing_waits_in_the_broker_for_the_analysis_server(failure: Callable[[], Exception]) -> None:
    world = World(*[failure() for _ in range(50)])
    broker = Broker(world.bridge)
    broker.tell(stored())
    await broker.handle_next()
    assert not broker.queued
    assert not broker.dead
    assert not broker.passed
    assert kinds(broker) == [AnalysisDelayed]
    assert len(world.server.asked) == 1


async def test_what_failed_between_is_tried_again_and_the_server_is_asked_then() -> None:
    """The analysis was recorded, so only the message knows that nobody has asked yet."""
    world = World(ConnectionError("something of ours is down"))
    broker = Broker(world.bridge)
    broker.tell(stored())
    await broker.handle_all()
    assert kinds(broker) == [AnalysisRequested]
    assert len(world.server.asked) == 2


async def test_a_redriven_recording_that_fails_is_dropped_and_the_next_one_does_not_ask() -> None:
    """A redrive has not been here before, so what the last one recorded counts as asked for until its deadline."""
    world = World(ConnectionError("something of ours is down"))
    broker = Broker(world.bridge)
    for _ in range(2):
        await broker.redrive(stored(), topology.BRIDGE_AUDIO_STORED)
        await broker.handle_next()
    assert not broker.queued
    assert kinds(broker) == [AnalysisRequested]
    assert len(world.server.asked) == 1


async def test_a_redrive_of_what_runs_tells_it_again_with_the_same_id() -> None:
    world = World()
    broker = Broker(world.bridge)
    broker.tell(stored())
    await broker.redrive(stored(), topology.BRIDGE_AUDIO_STORED)
    await broker.handle_all()
    first, again = broker.of(AnalysisRequested)
    assert (again.id, again.data) == (first.id, first.data)
    assert len(world.server.asked) == 1


async def test_ends_from_outside_and_late_webhooks_reach_the_bridge() -> None:
    world = World()
    broker = Broker(world.bridge)
    for event in (stored(), called_back(SUCCESS), stories.cancelled(), stories.expired(), called_back(SUCCESS, 2)):
        broker.tell(event)
    await broker.handle_all()
    assert kinds(broker) == [AnalysisRequested, AnalysisCompleted, AnalysisWebhookIgnored]


async def test_that_an_analysis_was_removed_is_told_once_the_mark_stands() -> None:
    world = World()
    broker = Broker(world.bridge)
    broker.tell(stories.purged())
    await broker.handle_all()
    (removed,) = broker.of(AnalysisRemoved)
    assert isinstance(removed, AnalysisRemoved)
    assert removed.data.token_id == stories.TOKEN_ID
    broker.tell(stories.purged())
    await broker.handle_all()
    assert [event.id for event in broker.of(AnalysisRemoved)] == [removed.id] * 2, (
        "a purge is repeated until it is done"
    )


async def test_a_purge_that_met_a_new_recording_is_told_once_more_and_then_done() -> None:
    world = World()
    broker = Broker(world.bridge)
    broker.tell(stored())
    broker.tell(stories.purged())
    await broker.handle_all()
    assert kinds(broker)[1:] == [JobPurged, AnalysisRemoved]
    (again,) = broker.of(JobPurged)
    broker.tell(again)
    broker.tell(stored())
    await broker.handle_all()
    assert [event.id for event in broker.of(JobPurged)] == [again.id] * 2
