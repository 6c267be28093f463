"""Names, queues and retry delays that all services declare alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events, topology
from contracts.topology import (
    MAX_ATTEMPTS,
    MAX_WAITS,
    QUEUES,
    RETRY_DELAYS,
    Queue,
    RetryDelay,
    patient_delay,
    retry_delay,
)

NOT_BROADCAST = {events.JobProgressed}
"""Goes through an exchange of its own, to a queue of each replica's own."""
FROM_THE_OPERATOR = {events.JobResumed}
"""Published by the operator's command, which is no service."""


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_a_queue_is_named_after_its_service_and_event(queue: Queue) -> None:
    service, _, event = queue.name.partition(".")
    assert service == queue.service in topology.SERVICES
    assert event == queue.routing_key == queue.event.TYPE


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


def test_a_dead_letter_may_be_looked_at_as_often_as_anybody_likes_on_every_rabbitmq() -> None:
    """RabbitMQ 4 drops after 20 returns what lies in a queue without a limit; 3.10 takes no negative one."""
    assert 10**6 < topology.DEAD_ARGUMENTS["x-delivery-limit"] < 2**31


def test_what_lies_in_a_queue_of_an_earlier_version_goes_to_the_queue_of_its_event() -> None:
    assert topology.RETIRED_QUEUES["analyzer-bridge.analysis-webhook-received"] == topology.BRIDGE_WEBHOOK_RECEIVED.name
    assert set(topology.RETIRED_QUEUES.values()) == {queue.name for queue in QUEUES}


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


LONGEST = {1: 1.0, 2: 2.0, 3: 5.0, 4: 15.0}
"""Seconds, by attempt; a minute from the fifth on."""


@given(st.integers(1, MAX_ATTEMPTS - 1))
def test_retries_wait_longer_each_time(attempt: int) -> None:
    delay = retry_delay(attempt)
    assert delay in RETRY_DELAYS
    longest = LONGEST.get(attempt, 60.0)
    assert longest / 2 <= delay.seconds <= longest


def test_all_tries_take_some_minutes() -> None:
    total = sum(LONGEST.get(attempt, 60.0) for attempt in range(1, MAX_ATTEMPTS))
    assert 200 < total / 2 < total < 8 * 60


@given(st.integers(MAX_ATTEMPTS, 10**9), st.floats(0, 10**6))
def test_no_message_is_tried_for_ever(attempt: int, at_least: float) -> None:
    assert retry_delay(attempt, at_least) is None


@given(st.integers(0, MAX_WAITS - 1))
def test_what_waits_for_something_that_is_away_waits_as_long_each_time(waits: int) -> None:
    delay = patient_delay(waits)
    assert delay is not None
    longest = LONGEST.get(waits + 1, 60.0)
    assert longest / 2 <= delay.seconds <= longest


def test_nothing_waits_for_ever() -> None:
    assert patient_delay(MAX_WAITS) is None
    assert 12 * 3600 < MAX_WAITS * 30 < MAX_WAITS * 60 < 48 * 3600, "about a day"


@given(st.integers(1, MAX_ATTEMPTS - 1), st.floats(0, 10**6))
def test_who_asks_for_a_pause_gets_it_as_far_as_the_longest_delay(attempt: int, at_least: float) -> None:
    for delay in (retry_delay(attempt, at_least), patient_delay(attempt - 1, at_least)):
        assert delay in RETRY_DELAYS
        assert delay.seconds >= min(at_least, 60)
        assert delay.seconds >= LONGEST.get(attempt, 60.0) / 2


def test_what_failed_together_returns_apart() -> None:
    """By several queues: one alone would let go of each message only after the one before it."""
    waits = {delay.seconds for delay in (retry_delay(MAX_ATTEMPTS - 1) for _ in range(200)) if delay}
    assert len(waits) >= 3
    assert max(waits) - min(waits) > 15
    assert all("x-message-ttl" in delay.arguments for delay in RETRY_DELAYS)


@pytest.mark.parametrize("queue", QUEUES, ids=lambda queue: queue.name)
def test_the_queues_of_an_event_are_those_with_its_type(queue: Queue) -> None:
    found = topology.queues_for(queue.event.TYPE)
    assert queue in found
    assert {other.event for other in found} == {queue.event}


def test_an_event_without_a_queue_goes_to_none() -> None:
    assert topology.queues_for(events.JobProgressed.TYPE) == ()
