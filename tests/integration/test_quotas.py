"""Quotas over real replicas: what they tell one another through MongoDB, and what that costs."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from chassis.clients import Proxies
from chassis.identity.caller import Caller, Kind
from chassis.mongodb import REQUEST_LIMITS, MongoDB
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS, Quota, QuotaReachedError
from chassis.quotas.replicas import Beat, Replicas, Shared
from chassis.quotas.store import UsageStore
from contracts.rights import Right
from gateway.jobs import indexes
from gateway.jobs.listing import JobFilter
from gateway.jobs.store import JobStore
from gateway.web.quotas import ClientQuotas
from local_stack.stack import Stack
from tests.support.databases import own_database, profiled
from tests.support.usage import Usage
from tests.support.waiting import until, until_true

ANN = "user:ann"
LIMIT = 600
QUOTAS = (REQUESTS, STREAMS)


class Commands(CommandListener):
    """Notes the commands that a client of MongoDB sends."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        pass

    def failed(self, event: CommandFailedEvent) -> None:
        pass


@pytest.fixture
async def url(stack: Stack) -> AsyncIterator[str]:
    """A database of the test's own."""
    async with own_database(stack) as opened:
        yield opened


@asynccontextmanager
async def replica(url: str, *listeners: CommandListener) -> AsyncIterator[tuple[Counts, Replicas]]:
    """One replica's quotas, at a time that stands still, so that no window ends."""
    now = time.time()
    counts = Counts({REQUESTS: LIMIT, STREAMS: 10}, lambda: now)
    mongodb = MongoDB(url, {**REQUEST_LIMITS, "event_listeners": listeners})
    replicas = Replicas("gateway", counts, UsageStore(mongodb, QUOTAS))
    yield counts, replicas
    await replicas.stop()
    mongodb.close()


def is_granted(counts: Counts, quota: Quota = REQUESTS) -> bool:
    try:
        counts.take(ANN, quota)
    except QuotaReachedError:
        return False
    return True


@pytest.fixture(params=["stand-in", "MongoDB"])
async def shared(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Shared]:
    """The stand-in, then the real one."""
    if request.param == "stand-in":
        yield Usage()
        return
    mongodb = MongoDB(url, REQUEST_LIMITS)
    yield UsageStore(mongodb, QUOTAS)
    mongodb.close()


async def test_replicas_hear_what_the_others_told_last(shared: Shared) -> None:
    one, other = Beat("one", "gateway", 1), Beat("other", "notifier", 7)
    await shared.tell(one, {ANN: {"requests": (5, 10)}, "192.0.2.1": {"requests": (5, 1)}})
    await shared.tell(other, {ANN: {"requests": (5, 3), "streams": (0, 2)}})
    await shared.tell(Beat("one", "gateway", 2), {ANN: {"requests": (5, 20)}})
    beats, reports = await shared.hear("other", [ANN])
    assert beats == [Beat("one", "gateway", 2)]
    assert [(report.replica, report.client, report.figures) for report in reports] == [
        ("one", ANN, {"requests": (5, 20)})
    ]
    beats, reports = await shared.hear("a third", [ANN, "192.0.2.1", "nobody"])
    assert {beat.replica for beat in beats} == {"one", "other"}
    assert sorted((report.replica, report.client) for report in reports) == [
        ("one", "192.0.2.1"),
        ("one", ANN),
        ("other", ANN),
    ]
    await shared.leave("one")
    beats, reports = await shared.hear("other", [ANN])
    assert beats == []
    assert [report.figures for report in reports] == [{"requests": (5, 20)}], "what it counted stays"


async def test_two_replicas_grant_what_one_may_and_agree(url: str) -> None:
    async with replica(url) as (ours, our_replicas), replica(url) as (theirs, their_replicas):
        our_replicas.start()
        their_replicas.start()
        await until_true(lambda: ours.peers == theirs.peers == 1, "each has heard the other")
        granted = 0
        asked_until = time.monotonic() + 3

        async def flood() -> bool:
            nonlocal granted
            granted += sum(is_granted(counts) for counts in (ours, theirs) for _ in range(20))
            return time.monotonic() > asked_until

        await until(flood, "three seconds of a flood")
        assert LIMIT * 0.9 <= granted <= LIMIT * 1.1

        def used(counts: Counts) -> int:
            return next(used.used for used in counts.usage(ANN) if used.quota is REQUESTS)

        await until_true(lambda: used(ours) == used(theirs) == granted, "both know of all")


async def test_a_request_asks_mongodb_nothing(url: str) -> None:
    commands = Commands()
    async with replica(url, commands) as (counts, replicas):
        await replicas.look()
        assert "find" in commands.names
        commands.names.clear()
        quotas = ClientQuotas(counts, Proxies([]))
        caller = Caller(Kind.PERSON, frozenset(Right), ANN)
        statuses: list[int] = []

        async def answer(_: object, __: object, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        for _ in range(LIMIT + 10):
            scope = {"type": "http", "method": "GET", "headers": [], "client": ("192.0.2.1", 1), "caller": caller}
            await quotas.serve(answer, scope, receive, send)
        assert statuses == [200] * LIMIT + [429] * 10
        assert commands.names == []
        await replicas.look()
        assert sorted(commands.names) == ["find", "update"], "one write and one read, whatever was counted"


async def test_documents_are_removed_once_they_say_nothing(url: str) -> None:
    mongodb = MongoDB(url, REQUEST_LIMITS)
    window = int(time.time() // REQUESTS.seconds)
    await UsageStore(mongodb, QUOTAS).tell(Beat("one", "gateway", 1), {ANN: {"requests": (window, 1)}})
    async with AsyncMongoClient[dict[str, Any]](url, tz_aware=True) as client:
        usage = client.get_default_database()["usage"]
        assert (await usage.index_information())["over"]["expireAfterSeconds"] == 0
        soon = datetime.now(UTC) + timedelta(minutes=7)
        assert all([document["expires_at"] < soon async for document in usage.find()])
        assert await usage.count_documents({}) == 2
    mongodb.close()


async def test_an_owners_jobs_are_counted_and_listed_from_indexes(url: str) -> None:
    mongodb = MongoDB(url, REQUEST_LIMITS)
    owners = [f"user:{number}" for number in range(20)]
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        jobs = client.get_default_database()["jobs"]
        await indexes.create(mongodb.collection("jobs"))
        rows = [
            {
                "_id": str(uuid.uuid4()),
                "owner": owner,
                "created_at": datetime.now(UTC),
                "purge_asked_at": None,
                "view": {"status": "processing" if number < 3 else "completed"},
            }
            for owner in [*owners, None]
            for number in range(100)
        ]
        await jobs.insert_many(rows)
        store = JobStore(mongodb)
        async with profiled(url) as entries:
            assert await store.waiting([*owners[:2], "192.0.2.1"]) == {owners[0]: 3, owners[1]: 3}
            with pytest.raises(ValueError, match="validation"):  # these documents are no whole jobs
                await store.page(JobFilter(), None, 5, (), owners[0])
        (counted,) = [entry for entry in entries if "aggregate" in entry["command"]]
        assert counted["docsExamined"] == 0
        assert counted["keysExamined"] < 20
        (listed,) = [entry for entry in entries if entry["op"] == "query" and entry["ns"].endswith(".jobs")]
        assert listed["docsExamined"] == 5
    mongodb.close()
