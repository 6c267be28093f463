"""Names, queues and retry delays that all services declare alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events, topology
from contracts.topology import MAX_ATTEMPTS, QUEUES, RETRY_DELAYS, Queue, RetryDelay, jittered, retry_delay

NOT_BROADCAST = {events.JobProgressed}
"""Goes through the fan-out exchange, to a queue of each replica's own."""
FROM_THE_OPERATOR = {events.JobResumed}
"""Published by the operator's command, which is no service."""


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_a_queue_is_named_after_its_service_and_event(queue: Queue) -> None:
    service, event = queue.name.split(".")
    assert service == queue.service in topology.SERVICES
    assert f"{event.replace('-', '.', 1)}.v1" == queue.routing_key == queue.event.TYPE


def test_names_are_unique() -> None:
    names = [name for queue in QUEUES for name in (queue.name, queue.dead_name)] + [d.name for d in RETRY_DELAYS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_what_no_retry_helps_goes_behind_its_own_queue(queue: Queue) -> None:
    assert queue.dead_name == f"{queue.name}.dead"
    assert queue.arguments["x-dead-letter-exchange"] == ""
    assert queue.arguments["x-dead-letter-routing-key"] == queue.dead_name
    assert queue.arguments["x-queue-type"] == "quorum"
    # At-least-once dead-lettering needs this overflow behaviour, else RabbitMQ falls back to at-most-once.
    assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
    assert queue.arguments["x-overflow"] == "reject-publish"
    assert queue.arguments["x-delivery-limit"] > 0


@pytest.mark.parametrize("delay", RETRY_DELAYS, ids=lambda delay: delay.name)
def test_a_waiting_message_goes_back_to_where_it_came_from(delay: RetryDelay) -> None:
    assert delay.arguments["x-message-ttl"] == delay.seconds * 1000
    assert delay.arguments["x-dead-letter-exchange"] == ""
    assert "x-dead-letter-routing-key" not in delay.arguments, "the message keeps its own: the queue's name"
    assert delay.arguments["x-dead-letter-strategy"] == "at-least-once"
    assert delay.arguments["x-overflow"] == "reject-publish"


def test_every_event_has_a_publisher_and_a_subscriber() -> None:
    published = {event for events_of in topology.PUBLISHES.values() for event in events_of}
    subscribed = {queue.event for queue in QUEUES} | NOT_BROADCAST
    assert published | FROM_THE_OPERATOR == subscribed == set(events.EVENT_TYPES)
    assert not published & FROM_THE_OPERATOR


def test_every_owner_of_a_part_of_a_job_hears_that_it_is_purged() -> None:
    assert {queue.service for queue in QUEUES if queue.event is events.JobPurged} == {
        "uploader",
        "analyzer-bridge",
        "notifier",
    }


def test_the_bridge_hears_of_every_end_from_outside() -> None:
    heard = {queue.event for queue in QUEUES if queue.service == "analyzer-bridge"}
    assert heard >= {events.JobCancelled, events.JobPurged, events.JobExpired}


def test_a_message_that_is_set_aside_again_after_a_replay_is_another_step() -> None:
    steps = [topology.held_step("a.queue", "an-event", replays) for replays in range(3)]
    assert len(set(steps)) == 3
    assert steps[0] == "a.queue/an-event", "the id of a first hold is what earlier versions derived"


def test_the_notifier_hears_all_that_changes_a_job() -> None:
    heard = {queue.event for queue in topology.NOTIFIER_QUEUES}
    assert heard == set(events.EVENT_TYPES) - {events.AnalysisWebhookReceived, events.JobProgressed}


def test_every_service_that_subscribes_can_say_that_it_held_a_job() -> None:
    for queue in QUEUES:
        assert events.JobHeld in topology.PUBLISHES[queue.service]


def test_retries_wait_longer_each_time_and_then_end() -> None:
    waits = [retry_delay(attempt) for attempt in range(1, MAX_ATTEMPTS + 1)]
    seconds = [delay.seconds for delay in waits[:-1] if delay]
    assert len(seconds) == MAX_ATTEMPTS - 1
    assert waits[-1] is None
    assert seconds == sorted(seconds)
    assert (seconds[0], seconds[-1]) == (1, 60)
    assert sum(seconds) < 600


@given(st.integers(MAX_ATTEMPTS, 10**9), st.floats(0, 10**6))
def test_no_message_is_tried_for_ever(attempt: int, at_least: float) -> None:
    assert retry_delay(attempt, at_least) is None


@given(st.integers(1, MAX_ATTEMPTS - 1), st.floats(0, 10**6))
def test_who_asks_for_a_pause_gets_it_as_far_as_the_longest_delay(attempt: int, at_least: float) -> None:
    delay = retry_delay(attempt, at_least)
    usual = retry_delay(attempt)
    assert delay is not None
    assert usual is not None
    assert delay.seconds >= min(at_least, 60)
    assert delay.seconds >= usual.seconds
    assert delay in RETRY_DELAYS


@given(st.sampled_from(RETRY_DELAYS), st.floats(0, 10**6))
def test_a_wait_is_between_half_of_the_delay_and_all_of_it(delay: RetryDelay, at_least: float) -> None:
    wait = jittered(delay, at_least)
    assert delay.seconds / 2 <= wait <= delay.seconds
    assert wait >= min(at_least, delay.seconds)


def test_what_failed_together_returns_apart() -> None:
    waits = {round(jittered(RETRY_DELAYS[-1]), 3) for _ in range(200)}
    assert len(waits) > 150
    assert max(waits) - min(waits) > 15
