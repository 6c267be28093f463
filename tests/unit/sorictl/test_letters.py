"""What sorictl reads from a dead letter, which ones a filter means, and what is done with them."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events, topology
from contracts.events import Event, JobHeld
from sorictl import dead_letters
from sorictl.dead_letters import DeadLetters
from sorictl.filters import Filters, parse_age, queues_named
from sorictl.letter import KILLED, DeadLetter, Message, read, replay_headers, resumed
from tests.support.events import Story

QUEUE = topology.BRIDGE_AUDIO_STORED
FIRST = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
LAST = FIRST + timedelta(minutes=8)
BY_A_SERVICE = {
    topology.REASON_HEADER: "server_error: 500",
    topology.ATTEMPT_HEADER: 12,
    topology.FIRST_FAILURE_HEADER: FIRST.isoformat(),
    topology.LAST_FAILURE_HEADER: LAST.isoformat(),
    topology.SERVICE_VERSION_HEADER: "analyzer-bridge 0.1.0",
}
WAITED = {"queue": "sori.retry.1000ms", "reason": "expired", "count": 3, "time": FIRST}
KILLER = {"queue": QUEUE.name, "reason": "delivery_limit", "count": 1, "time": LAST, "exchange": ""}


def message(headers: Mapping[str, Any] | None = None, event: Event | None = None) -> Message:
    told = event or Story(str(uuid.uuid4())).audio_stored()
    return Message(told.encode(), told.id, BY_A_SERVICE if headers is None else headers)


class Pile:
    """Dead letters in memory, as the broker would keep them."""

    def __init__(self, *messages: Message) -> None:
        self.dead = {QUEUE.name: list(messages)}
        self.steps: list[tuple[str, object]] = []
        self.back: list[tuple[Message, Mapping[str, Any]]] = []
        self.comes_back = False
        self.breaks_at: str | None = None

    @asynccontextmanager
    async def waiting(self, queue: topology.Queue) -> AsyncIterator[AsyncIterator["InHand"]]:
        held: list[Message] = []
        dead = self.dead.setdefault(queue.name, [])

        async def taken() -> AsyncIterator[InHand]:
            while dead:
                held.append(dead.pop(0))
                yield InHand(held[-1], self, held)

        try:
            yield taken()
        finally:
            dead[:0] = held

    async def put_back(self, queue: topology.Queue, message: Message, headers: Mapping[str, Any]) -> None:
        self.step("put back", message.message_id)
        self.back.append((message, headers))
        if self.comes_back:
            self.dead[queue.name].insert(0, replace(message, headers={**BY_A_SERVICE, **headers}))

    async def publish(self, event: Event) -> None:
        self.step("publish", event)

    def step(self, name: str, about: object) -> None:
        if name == self.breaks_at:
            raise ConnectionError
        self.steps.append((name, about))


@dataclass
class InHand:
    message: Message
    pile: Pile
    held: list[Message] = field(repr=False)

    async def remove(self) -> None:
        self.pile.step("remove", self.message.message_id)
        self.held.remove(self.message)


async def found(pile: Pile, filters: Filters | None = None, limit: int = 1000) -> tuple[list[DeadLetter], bool]:
    letters: list[DeadLetter] = []
    more = await DeadLetters(pile).find(filters or Filters(), limit, lambda letter, _: letters.append(letter))
    return letters, more


def test_what_a_service_said_of_a_message_is_read() -> None:
    told = Story(str(uuid.uuid4())).audio_stored()
    letter = read(QUEUE, message({**BY_A_SERVICE, topology.REPLAYS_HEADER: 2}, told))
    assert letter == DeadLetter(
        id=told.id,
        queue=QUEUE.name,
        job_id=told.subject,
        event_id=told.id,
        event_type="audio.stored.v1",
        reason="server_error: 500",
        attempts=12,
        first_failure=FIRST,
        last_failure=LAST,
        replays=2,
        service_version="analyzer-bridge 0.1.0",
    )


@pytest.mark.parametrize("before", [{}, BY_A_SERVICE], ids=["at once", "replayed before"])
def test_a_message_that_the_broker_set_aside_says_so(before: Mapping[str, Any]) -> None:
    letter = read(QUEUE, message({**before, "x-death": [WAITED, KILLER]}))
    assert letter.reason == KILLED == "delivered 50 times without an outcome"
    assert (letter.last_failure, letter.service_version) == (LAST, None)


def test_a_message_that_has_only_waited_for_retries_was_set_aside_by_its_service() -> None:
    letter = read(QUEUE, message({**BY_A_SERVICE, "x-death": [WAITED]}))
    assert (letter.reason, letter.last_failure) == ("server_error: 500", LAST)


@given(
    st.binary(max_size=50),
    st.dictionaries(
        st.sampled_from([*BY_A_SERVICE, "x-death", topology.REPLAYS_HEADER]),
        st.none() | st.integers() | st.text() | st.binary() | st.lists(st.dictionaries(st.text(), st.text())),
    ),
)
def test_any_message_can_be_read_and_can_go_back(body: bytes, headers: dict[str, Any]) -> None:
    wild = Message(body, None, headers)
    letter = read(QUEUE, wild)
    assert letter.id.startswith("body-")
    assert letter.attempts >= 0
    assert replay_headers(headers)[topology.REPLAYS_HEADER] == letter.replays + 1
    assert resumed(QUEUE, wild) is None


def test_a_message_goes_back_without_what_the_broker_noted_of_it() -> None:
    noted = {"x-death": [KILLER], "x-first-death-queue": "q", "x-last-death-reason": "r", "x-delivery-count": 3}
    back = replay_headers({**BY_A_SERVICE, **noted, "x-of-somebody": "kept"})
    assert back == {**BY_A_SERVICE, "x-of-somebody": "kept", topology.ATTEMPT_HEADER: 1, topology.REPLAYS_HEADER: 1}


@pytest.mark.parametrize("replays", [0, 1, 7])
def test_what_lets_a_job_go_names_the_hold_that_this_message_made(replays: int) -> None:
    told = Story(str(uuid.uuid4())).audio_stored()
    event = resumed(QUEUE, message({topology.REPLAYS_HEADER: replays}, told))
    assert event is not None
    step = topology.held_step(QUEUE.name, told.id, replays)
    assert event.data.held_id == events.event_id(told.subject, JobHeld.TYPE, step)
    assert (event.subject, event.source, event.traceparent) == (told.subject, "/sori/sorictl", told.traceparent)
    assert (again := resumed(QUEUE, message({topology.REPLAYS_HEADER: replays}, told))) is not None
    assert again.id == event.id


def test_a_message_of_a_later_version_still_lets_its_job_go() -> None:
    job_id = str(uuid.uuid4())
    body = {"id": "x", "subject": job_id, "type": "audio.stored.v9", "traceparent": events.continued_trace(None)}
    event = resumed(QUEUE, Message(json.dumps(body).encode(), "x", {}))
    assert event is not None
    assert event.subject == job_id


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200), (" 1W ", 604800), ("0s", 0)]
)
def test_an_age_is_a_number_and_a_unit(text: str, seconds: int) -> None:
    assert parse_age(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1.5h", "10 m", "1h30m", "9999999d", "²m"])
def test_what_is_no_age_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(ValueError, match="10m, 2h, 3d"):
        parse_age(text)


def test_a_queue_is_named_whole_or_by_a_pattern() -> None:
    assert queues_named([]) == topology.QUEUES
    assert queues_named([QUEUE.name]) == queues_named([QUEUE.dead_name]) == (QUEUE,)
    assert queues_named(["notifier.*"]) == topology.NOTIFIER_QUEUES
    assert queues_named(["notifier.*", QUEUE.name]) == (QUEUE, *topology.NOTIFIER_QUEUES)
    with pytest.raises(ValueError, match=r"no queue is called nobody\.\*; there are uploader"):
        queues_named([QUEUE.name, "nobody.*"])


LETTER = read(QUEUE, message())
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        (Filters(), True),
        (Filters(ids=frozenset([LETTER.id, "other"])), True),
        (Filters(ids=frozenset(["other"])), False),
        (Filters(job=LETTER.job_id), True),
        (Filters(job="other"), False),
        (Filters(reason="SERVER"), True),
        (Filters(reason="schema"), False),
        (Filters(set_aside_before=LAST + SECOND), True),
        (Filters(set_aside_before=LAST - SECOND), False),
        (Filters(set_aside_after=LAST - SECOND), True),
        (Filters(set_aside_after=LAST + SECOND), False),
        (Filters(job=LETTER.job_id, reason="schema"), False),
    ],
)
def test_every_filter_that_is_given_must_fit(filters: Filters, matches: bool) -> None:
    assert filters.match(LETTER) is matches


@pytest.mark.parametrize("filters", [Filters(set_aside_before=LAST), Filters(set_aside_after=FIRST)])
def test_what_is_of_unknown_age_fits_no_age(filters: Filters) -> None:
    letter = read(QUEUE, message({}))
    assert letter.last_failure is None
    assert not filters.match(letter)
    assert Filters().match(letter)


async def test_finding_leaves_everything_as_it_was() -> None:
    pile = Pile(*(message() for _ in range(5)))
    before = list(pile.dead[QUEUE.name])
    letters, more = await found(pile)
    assert [letter.id for letter in letters] == [m.message_id for m in before]
    assert (pile.dead[QUEUE.name], more) == (before, False)


@pytest.mark.parametrize(("limit", "more"), [(2, True), (3, False)])
async def test_finding_ends_at_the_limit_and_tells_whether_there_are_more(limit: int, more: bool) -> None:
    of_interest = {**BY_A_SERVICE, topology.REASON_HEADER: "interesting"}
    pile = Pile(message(), message(of_interest), message(), message(of_interest), message(of_interest), message())
    letters, told_more = await found(pile, Filters(reason="interesting"), limit)
    assert (len(letters), told_more) == (limit, more)


async def test_a_message_is_removed_only_once_it_lies_in_its_queue_and_its_job_was_let_go() -> None:
    one, two = message(), message()
    pile = Pile(one, two)
    letters, _ = await found(pile)
    await DeadLetters(pile).replay(letters, lambda _: None)
    assert [name for name, _ in pile.steps] == ["put back", "publish", "remove"] * 2
    assert [back.message_id for back, _ in pile.back] == [one.message_id, two.message_id]
    assert pile.back[0][0].body == one.body
    assert pile.dead[QUEUE.name] == []


@pytest.mark.parametrize("breaks_at", ["put back", "publish", "remove"])
async def test_wherever_a_replay_breaks_off_the_dead_letter_stays(breaks_at: str) -> None:
    pile = Pile(message())
    letters, _ = await found(pile)
    pile.breaks_at = breaks_at
    with pytest.raises(ConnectionError):
        await DeadLetters(pile).replay(letters, lambda _: None)
    assert len(pile.dead[QUEUE.name]) == 1


async def test_what_cannot_say_which_job_it_is_about_goes_back_all_the_same() -> None:
    pile = Pile(Message(b"\x00 no event", None, {}))
    letters, _ = await found(pile)
    await DeadLetters(pile).replay(letters, lambda _: None)
    assert [name for name, _ in pile.steps] == ["put back", "remove"]


async def test_what_a_replay_sends_back_at_once_is_not_replayed_again() -> None:
    pile = Pile(*[message()] * 2)
    pile.comes_back = True
    letters, _ = await found(pile)
    await DeadLetters(pile).replay(letters, lambda _: None)
    assert len(pile.back) == 2
    assert [read(QUEUE, m).replays for m in pile.dead[QUEUE.name]] == [1, 1]


async def test_the_same_message_twice_goes_back_twice_and_a_third_one_stays() -> None:
    same = message()
    pile = Pile(same, same, message())
    letters, _ = await found(pile, Filters(ids=frozenset([str(same.message_id)])))
    pile.dead[QUEUE.name].append(same)
    await DeadLetters(pile).replay(letters, lambda _: None)
    assert len(pile.back) == 2
    assert len(pile.dead[QUEUE.name]) == 2


async def test_what_is_no_longer_there_is_looked_for_again_and_then_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "LOOK_AGAIN_SECONDS", 0)
    gone, here = message(), message()
    pile = Pile(gone, here)
    letters, _ = await found(pile)
    pile.dead[QUEUE.name].remove(gone)
    done: list[DeadLetter] = []
    await DeadLetters(pile).discard(letters, done.append)
    assert len(done) == 1
    assert pile.steps == [("remove", here.message_id)]
