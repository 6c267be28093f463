"""Queues of earlier versions: what lies in them goes to the queues in their place, and nothing is lost on the way."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from contracts import events, topology
from contracts.events import JobHeld
from sorictl.letter import Message, replay_headers, resumed
from sorictl.retired import QueueState, TakenOver, remove_exchanges, take_over
from tests.support.events import Story

NEW = topology.BRIDGE_AUDIO_STORED
OLD = "analyzer-bridge.audio-stored-of-old"
RETIRED = {OLD: NEW.name}
WAITED = "messages wait for their next try, perhaps in it"


class InMemory:
    """Queues and exchanges in memory, as the broker would keep them."""

    def __init__(self, **queues: list[Message]) -> None:
        self.queues: dict[str, list[Message]] = {NEW.name: [], NEW.dead_name: [], **queues}
        self.consumers: dict[str, int] = {}
        self.exchanges = {"one.witness", "other"}
        self.bound = {(OLD, NEW.routing_key)}
        self.breaks_after_moves: int | None = None

    async def state(self, queue: str) -> QueueState | None:
        if queue not in self.queues:
            return None
        return QueueState(len(self.queues[queue]), self.consumers.get(queue, 0))

    @asynccontextmanager
    async def taking(self, queue: str) -> AsyncIterator[AsyncIterator["InHand"]]:
        held: list[Message] = []

        async def taken() -> AsyncIterator[InHand]:
            while self.queues[queue]:
                held.append(self.queues[queue].pop(0))
                yield InHand(held[-1], held)

        try:
            yield taken()
        finally:
            self.queues[queue][:0] = held

    async def move(self, message: Message, headers: Mapping[str, Any], new: str) -> None:
        self.queues[new].append(Message(message.body, message.message_id, headers))
        if self.breaks_after_moves is not None:
            self.breaks_after_moves -= 1
            if self.breaks_after_moves == 0:
                raise ConnectionError

    async def unbind(self, queue: str, event_type: str) -> None:
        self.bound.discard((queue, event_type))

    async def remove_queue(self, queue: str) -> None:
        del self.queues[queue]

    async def remove_exchange(self, exchange: str) -> bool:
        was_there = exchange in self.exchanges
        self.exchanges.discard(exchange)
        return was_there


class InHand:
    def __init__(self, message: Message, held: list[Message]) -> None:
        self.message = message
        self._held = held

    async def remove(self) -> None:
        self._held.remove(self.message)


def messages(count: int = 3) -> list[Message]:
    return [Message(f"{number}".encode(), str(number), {topology.ATTEMPT_HEADER: 2}) for number in range(count)]


async def test_what_lies_in_an_old_queue_and_its_dead_letters_goes_to_the_new_ones_and_the_old_ones_go() -> None:
    broker = InMemory(**{OLD: messages(), f"{OLD}.dead": messages(2)})
    assert await take_over(broker, RETIRED) == [
        TakenOver(OLD, NEW.name, 3, None),
        TakenOver(f"{OLD}.dead", NEW.dead_name, 2, None),
    ]
    assert broker.queues.keys() == {NEW.name, NEW.dead_name}
    assert broker.queues[NEW.name] == messages()
    assert [message.body for message in broker.queues[NEW.dead_name]] == [b"0", b"1"]
    assert broker.bound == set()
    assert await take_over(broker, RETIRED) == []


async def test_the_old_queue_s_count_of_deliveries_does_not_go_along() -> None:
    broker = InMemory(**{OLD: [Message(b"", "1", {topology.DELIVERIES_HEADER: 40, "x-of-somebody": "kept"})]})
    await take_over(broker, RETIRED)
    assert [message.headers for message in broker.queues[NEW.name]] == [{"x-of-somebody": "kept"}]


async def test_a_crash_moves_a_message_twice_but_loses_none() -> None:
    broker = InMemory(**{OLD: messages()})
    broker.breaks_after_moves = 2
    with pytest.raises(ConnectionError):
        await take_over(broker, RETIRED)
    broker.breaks_after_moves = None
    await take_over(broker, RETIRED)
    assert [message.message_id for message in broker.queues[NEW.name]] == ["0", "1", "1", "2"]
    assert OLD not in broker.queues


@pytest.mark.parametrize("replayed", [0, 2])
async def test_a_moved_dead_letter_still_lets_go_the_job_that_it_held(replayed: int) -> None:
    event = Story(str(uuid.uuid4())).audio_stored()
    letter = Message(event.encode(), event.id, {topology.REPLAYS_HEADER: replayed})
    broker = InMemory(**{f"{OLD}.dead": [letter]})
    await take_over(broker, RETIRED)
    [moved] = broker.queues[NEW.dead_name]
    resuming = resumed(NEW, moved)
    assert resuming is not None
    step = topology.held_step(OLD, event.id, replayed)
    assert resuming.data.held_id == events.event_id(event.subject, JobHeld.TYPE, step)
    # When it is set aside again after its replay, the new queue's name is the hold's.
    again = Message(moved.body, moved.message_id, replay_headers(moved.headers))
    assert (resuming := resumed(NEW, again)) is not None
    step = topology.held_step(NEW.name, event.id, replayed + 1)
    assert resuming.data.held_id == events.event_id(event.subject, JobHeld.TYPE, step)


async def test_a_queue_that_a_service_of_an_earlier_version_consumes_stays_and_so_do_its_dead_letters() -> None:
    broker = InMemory(**{OLD: messages(), f"{OLD}.dead": messages(1)})
    broker.consumers[OLD] = 1
    done = await take_over(broker, RETIRED)
    assert [(one.moved, one.stays_because) for one in done] == [
        (3, "a service of an earlier version consumes it"),
        (1, f"{OLD} is still there"),
    ]
    assert {OLD, f"{OLD}.dead"} <= broker.queues.keys()


async def test_a_queue_to_which_a_message_may_still_come_back_for_its_next_try_stays() -> None:
    delay = topology.RETRY_DELAYS[-1].name
    broker = InMemory(**{OLD: messages(), delay: messages(1)})
    assert await take_over(broker, RETIRED) == [TakenOver(OLD, NEW.name, 3, WAITED)]
    broker.queues[delay] = []
    assert await take_over(broker, RETIRED) == [TakenOver(OLD, NEW.name, 0, None)]


async def test_only_exchanges_that_are_retired_are_removed_and_those_that_were_there_are_counted() -> None:
    broker = InMemory()
    assert await remove_exchanges(broker, ["one.witness", "two.witness"]) == 1
    assert broker.exchanges == {"other"}
    assert await remove_exchanges(broker, ["one.witness", "two.witness"]) == 0


def test_every_retired_queue_has_a_successor() -> None:
    names = {queue.name for queue in topology.QUEUES}
    assert set(topology.RETIRED_QUEUES.values()) <= names
    assert not topology.RETIRED_QUEUES.keys() & names
