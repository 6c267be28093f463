"""Quotas: how much a client may use over all replicas, which hear of one another once a second."""

from collections.abc import Collection, Mapping

import pytest
from starlette.types import Message

from chassis.errors import AwayError
from chassis.quotas.answers import telling
from chassis.quotas.counts import MOST_CLIENTS, REPEAT_SECONDS, Counts
from chassis.quotas.quota import REQUESTS, STREAMS, Quota, QuotaReachedError, Used
from chassis.quotas.replicas import MOST_MISSED, Replicas
from tests.support.usage import Usage

LIMIT = 600
BYTES = Quota("bytes", "content-bytes", 24 * 3600)
WAITING = Quota("waiting", "concurrent-requests", 30, is_held=True, is_measured=True)
ANN, BOB = "user:ann", "192.0.2.1"


class Clock:
    """A time that passes when it is told to; it begins with a minute."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Services:
    """Replicas of services, which share what they count."""

    def __init__(self, *services: str, limits: Mapping[Quota, int] | None = None) -> None:
        self.clock = Clock()
        self.usage = Usage()
        self.waiting = {ANN: 0}
        self.counts = [
            Counts(limits or {REQUESTS: LIMIT, STREAMS: 10, BYTES: 1000, WAITING: 5}, self.clock) for _ in services
        ]
        self.all = [
            Replicas(service, counts, self.usage, {WAITING: self._measure})
            for service, counts in zip(services, self.counts, strict=True)
        ]

    async def look(self, *which: int) -> None:
        """Have these replicas look, or all of them twice: then each knows what all have told."""
        for index in which or [*range(len(self.all))] * 2:
            await self.all[index].look()

    def used(self, index: int, quota: Quota = REQUESTS, client: str = ANN) -> int:
        return next(used.used for used in self.counts[index].usage(client) if used.quota is quota)

    def taken(self, index: int, asked: int, quota: Quota = REQUESTS) -> int:
        """How many of so many uses one replica grants."""
        granted = 0
        for _ in range(asked):
            try:
                self.counts[index].take(ANN, quota)
            except QuotaReachedError:
                return granted
            granted += 1
        return granted

    async def _measure(self, clients: Collection[str]) -> Mapping[str, int]:
        return {client: self.waiting[client] for client in clients if self.waiting.get(client)}


def one(limit: int = 3) -> tuple[Counts, Clock]:
    clock = Clock()
    return Counts({REQUESTS: limit, STREAMS: limit, BYTES: limit}, clock), clock


def test_a_limit_is_reached_and_the_next_window_begins_anew() -> None:
    counts, clock = one()
    clock.now += 20
    for left in (2, 1, 0):
        assert counts.take(ANN, REQUESTS) == Used(REQUESTS, 3 - left, 3, 40)
    with pytest.raises(QuotaReachedError) as reached:
        counts.take(ANN, REQUESTS)
    assert reached.value.retry_after == 40
    assert reached.value.used == Used(REQUESTS, 3, 3, 40), "what is refused does not count"
    counts.take(BOB, REQUESTS)
    clock.now += reached.value.retry_after
    assert counts.take(ANN, REQUESTS) == Used(REQUESTS, 1, 3, 60)


def test_what_is_held_is_given_back_however_the_block_ends() -> None:
    counts, _ = one(limit=1)

    def hold_two() -> None:
        with counts.held(ANN, STREAMS), counts.held(ANN, STREAMS):
            raise AssertionError("there is one already")

    for _ in range(2):
        with pytest.raises(QuotaReachedError) as reached:
            hold_two()
        assert reached.value.used == Used(STREAMS, 1, 1, None)


def test_a_check_counts_nothing_and_bytes_are_counted_as_they_come() -> None:
    counts, clock = one(limit=10)
    assert counts.check(ANN, BYTES) == Used(BYTES, 0, 10, 24 * 3600 - int(clock.now % (24 * 3600)))
    counts.add(ANN, BYTES, 9)
    counts.check(ANN, BYTES)
    counts.add(ANN, BYTES, 9)
    with pytest.raises(QuotaReachedError):
        counts.check(ANN, BYTES)


def test_a_limit_of_none_and_a_client_without_a_name_are_not_counted() -> None:
    counts = Counts({REQUESTS: 0, STREAMS: 1})
    for _ in range(5):
        assert counts.take(ANN, REQUESTS) is None
        assert counts.take(None, STREAMS) is None
    with counts.held(None, STREAMS):
        counts.add(None, STREAMS, 5)
    assert [used.quota for used in counts.usage(ANN)] == [STREAMS]


def test_clients_are_forgotten_and_who_holds_something_is_not() -> None:
    counts, clock = one()
    counts.take(ANN, STREAMS)
    for number in range(MOST_CLIENTS + 10):
        counts.take(f"2001:db8:0:{number:x}::/64", REQUESTS)
    clock.now += 1
    counts.take(BOB, REQUESTS)
    counts.changed()
    assert counts.remembered <= MOST_CLIENTS
    assert [used.used for used in counts.usage(BOB) if used.quota is REQUESTS] == [1]
    clock.now += 10 * REPEAT_SECONDS
    counts.changed()
    assert counts.remembered == 1
    assert [used.used for used in counts.usage(ANN) if used.quota is STREAMS] == [1]


@pytest.mark.parametrize("replicas", [2, 3, 5])
async def test_a_flood_gets_what_it_may_have_whenever_replicas_look(replicas: int) -> None:
    """Each is asked without end, and looks at another moment of each second."""
    sori = Services(*["gateway"] * replicas)
    await sori.look()
    granted = 0
    for _ in range(4):
        for looking in range(replicas):
            for _ in range(50):
                granted += sum(sori.taken(index, 1) for index in range(replicas))
            await sori.look(looking)
    assert LIMIT * 0.9 <= granted <= LIMIT * 1.1


async def test_whoever_meets_one_replica_alone_may_use_all() -> None:
    sori = Services("gateway", "gateway")
    await sori.look()
    granted = 0
    for _ in range(65):
        granted += sori.taken(0, 10)
        await sori.look()
    assert granted == LIMIT


async def test_one_that_is_refused_for_what_others_may_have_counted_comes_soon() -> None:
    sori = Services("gateway", "gateway")
    await sori.look()
    sori.taken(0, LIMIT)
    with pytest.raises(QuotaReachedError) as reached:
        sori.counts[0].take(ANN, REQUESTS)
    assert reached.value.retry_after == 2
    await sori.look()
    sori.counts[0].take(ANN, REQUESTS)


async def test_replicas_of_another_service_are_added_and_not_guessed() -> None:
    sori = Services("gateway", "notifier")
    await sori.look()
    assert sori.taken(0, LIMIT) == LIMIT
    assert sori.used(1) == 0, "it has not seen this client yet"
    await sori.look()
    assert sori.used(1) == LIMIT


async def test_all_know_what_all_have_counted() -> None:
    sori = Services("gateway", "gateway", "notifier")
    await sori.look()
    for index, count in enumerate((7, 20, 3)):
        assert sori.taken(index, count) == count
    sori.counts[2].take(ANN, STREAMS)
    sori.counts[0].take(BOB, REQUESTS)
    await sori.look()
    assert [sori.used(index) for index in range(3)] == [30, 30, 30]
    assert [sori.used(index, STREAMS) for index in range(3)] == [1, 1, 1]
    sori.clock.now += REQUESTS.seconds
    await sori.look()
    assert [sori.used(index) for index in range(3)] == [0, 0, 0]


async def test_what_a_dead_replica_held_is_free_again_and_what_it_counted_stays() -> None:
    sori = Services("gateway", "gateway")
    sori.taken(1, 10, STREAMS)
    sori.counts[1].add(ANN, BYTES, 900)
    sori.counts[0].check(ANN, STREAMS)
    await sori.look()
    assert sori.taken(0, 1, STREAMS) == 0
    for _ in range(MOST_MISSED + 1):
        await sori.look(0)
    assert sori.taken(0, 20, STREAMS) == 10
    assert sori.used(0, BYTES) == 900


async def test_a_replica_that_leaves_is_gone_at_once() -> None:
    sori = Services("gateway", "gateway")
    await sori.look()
    await sori.all[1].stop()
    await sori.look(0)
    assert sori.taken(0, LIMIT * 2) == LIMIT


async def test_without_mongodb_each_goes_on_with_what_it_knows() -> None:
    sori = Services("gateway", "gateway")
    sori.taken(1, 100)
    await sori.look()
    sori.taken(0, 1)
    await sori.look()
    sori.usage.is_away = True
    for _ in range(3):
        for index in range(2):
            with pytest.raises(AwayError):
                await sori.look(index)
    granted = sum(sori.taken(index, 1) for _ in range(LIMIT) for index in range(2))
    assert granted == pytest.approx(LIMIT - 101, abs=2)
    sori.usage.is_away = False
    await sori.look()
    assert sori.used(0) == sori.used(1) == pytest.approx(LIMIT, abs=2), "what could not be told was told now"


async def test_what_could_not_be_told_is_told_later() -> None:
    sori = Services("gateway", "gateway")
    sori.counts[0].add(ANN, BYTES, 5)
    sori.usage.is_away = True
    with pytest.raises(AwayError):
        await sori.look(0)
    sori.usage.is_away = False
    assert sori.used(1, BYTES) == 0
    await sori.look()
    assert sori.used(1, BYTES) == 5


async def test_what_is_measured_elsewhere_counts_with_what_has_come_since() -> None:
    sori = Services("gateway", "gateway")
    sori.counts[0].check(ANN, WAITING)
    sori.waiting[ANN] = 3
    await sori.look()
    sori.counts[0].add(ANN, WAITING, 1)
    assert sori.used(0, WAITING) == 5, "the other one may have had one too"
    with pytest.raises(QuotaReachedError):
        sori.counts[0].check(ANN, WAITING)
    sori.waiting[ANN] = 4
    await sori.look()
    assert sori.used(0, WAITING) == 4
    assert await sori.all[1].usage(ANN) == sori.counts[1].usage(ANN)
    assert sori.used(1, WAITING) == 4, "also where the owner was never seen"


@pytest.mark.parametrize(
    ("used", "policy", "limit"),
    [
        ([], None, None),
        ([Used(REQUESTS, 1, 600, 34)], '"requests";q=600;w=60', '"requests";r=599;t=34'),
        (
            [Used(REQUESTS, 1, 600, 34), Used(STREAMS, 10, 10, None), Used(BYTES, 5, 9, 7)],
            '"requests";q=600;w=60, "streams";q=10;qu="concurrent-requests", "bytes";q=9;qu="content-bytes";w=86400',
            '"requests";r=599;t=34, "streams";r=0, "bytes";r=4;t=7',
        ),
    ],
)
async def test_answers_tell_what_is_left(used: list[Used], policy: str | None, limit: str | None) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    tell = telling(used, send)
    await tell({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await tell({"type": "http.response.body", "body": b""})
    expected = (
        []
        if policy is None or limit is None
        else [(b"ratelimit-policy", policy.encode()), (b"ratelimit", limit.encode())]
    )
    assert sent[0]["headers"] == [(b"a", b"b"), *expected]
    assert sent[1] == {"type": "http.response.body", "body": b""}
