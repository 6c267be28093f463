"""Owners take turns at the analysis server: over the real collection and real requests, with one bridge and two."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from aiohttp import web

from analyzer_bridge.analysis_server import AnalysisServerClient
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.deadlines import Deadlines
from analyzer_bridge.room import Room
from analyzer_bridge.settings import Settings
from analyzer_bridge.store import AnalysisStore
from analyzer_bridge.waiting import Waiting
from chassis.mongodb import MESSAGE_LIMITS, MongoDB
from contracts.events import AnalysisWebhookReceived, AudioStored
from local_stack.stack import Stack
from tests.support.databases import own_database
from tests.support.queues import Queues
from tests.support.waiting import until_true
from tests.unit.analyzer_bridge.bridge_world import FIRST
from tests.unit.stories import called_back, stored

IN_FLIGHT = 8
ANALYSIS_SECONDS = 0.1
A, B = "user:" + "a" * 32, "key:" + "b" * 32


@dataclass
class Analysing:
    """An analysis server that has room for `places`, or for all, and calls back after `seconds`."""

    bridges: list[Bridge] = field(default_factory=list)
    places: int | None = None
    seconds: float = ANALYSIS_SECONDS
    staggered: int = 0
    """So many of the first ones end sooner, one after the other, and so do all that follow them."""
    taken: list[str] = field(default_factory=list)
    """The jobs that were taken on, in this order."""
    done: list[str] = field(default_factory=list)
    """The jobs whose results have come, in this order."""
    refused: int = 0
    most: int = 0
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def analyze(self, request: web.Request) -> web.Response:
        """Take a recording on, or say that there is no room for it."""
        address = urlsplit(str((await request.post())["webhook_url"]))
        (job_id,) = parse_qs(address.query)["job_id"]
        if self.places is not None and len(self._under_way) >= self.places:
            self.refused += 1
            return web.Response(status=503)
        self.taken.append(job_id)
        share = min(len(self.taken) / self.staggered, 1.0) if self.staggered else 1.0
        self._under_way[job_id] = asyncio.create_task(self._call_back(job_id, self.seconds * share))
        self.most = max(self.most, len(self._under_way))
        return web.json_response({"status": "processing"})

    async def stop(self) -> None:
        """Call nobody back any more."""
        for task in self._under_way.values():
            task.cancel()

    async def _call_back(self, job_id: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        del self._under_way[job_id]
        self.done.append(job_id)
        said = called_back({"status": "success", "result": {"score": 1}}).model_dump() | {"subject": job_id}
        await random.choice(self.bridges).finish(AnalysisWebhookReceived.model_validate(said))


class Consuming(Queues):
    """A broker that says nothing of what it consumes: nothing is overdue here."""

    def consuming_since(self) -> datetime | None:
        return None


class Replica:
    """One analyzer-bridge without its queues."""

    def __init__(self, mongodb_url: str, server_url: str, limit: int | None) -> None:
        settings = Settings.model_validate(
            {
                "rabbitmq_url": "amqp://nowhere/",
                "mongodb_url": mongodb_url,
                "target_server_url": server_url,
                "webhook_url": "http://gateway.example/webhook",
                "webhook_secret": "a secret of some length",
            }
        )
        self._mongodb = MongoDB(mongodb_url, MESSAGE_LIMITS)
        self.analyses = AnalysisStore(self._mongodb)
        self.server = AnalysisServerClient(settings)
        room, broker = Room(limit), Consuming(routes=False)
        self.bridge = Bridge(self.analyses, self.server, room, timeout=timedelta(seconds=600), attempts=3, version="1")
        self._deadlines = Deadlines(self.bridge, self.analyses, broker, room)
        self._waiting = Waiting(self.bridge, self.analyses, self.server, broker, room)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.server:
            self._deadlines.start()
            self._waiting.start()
            try:
                yield
            finally:
                await self._deadlines.stop()
                await self._waiting.stop(5.0)
                self._mongodb.close()


@contextlib.asynccontextmanager
async def analysing(
    stack: Stack, *, replicas: int, limit: int | None = None, places: int | None = None
) -> AsyncIterator[tuple[Analysing, list[Replica]]]:
    """An analysis server, and the bridges that ask it."""
    analysing = Analysing(places=places)
    app = web.Application()
    app.router.add_post("/analyze-voice", analysing.analyze)
    async with own_database(stack) as mongodb_url, contextlib.AsyncExitStack() as running:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        running.push_async_callback(runner.cleanup)
        running.push_async_callback(analysing.stop)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/analyze-voice"
        bridges = [Replica(mongodb_url, url, limit) for _ in range(replicas)]
        analysing.bridges = [one.bridge for one in bridges]
        await bridges[0].analyses.prepare()
        for one in bridges:
            await running.enter_async_context(one.running())
        yield analysing, bridges


def recording(owner: str | None) -> AudioStored:
    return stored(str(uuid4()), digest=uuid4().hex * 2, owner=owner)


async def send(bridges: list[Replica], recordings: list[AudioStored]) -> None:
    """Have each handled by one of the bridges, some at once, as their queues do."""
    at_once = asyncio.Semaphore(16)

    async def begin(one: AudioStored) -> None:
        async with at_once:
            await random.choice(bridges).bridge.begin(one, FIRST)

    await asyncio.gather(*(begin(one) for one in recordings))


@pytest.mark.parametrize("replicas", [1, 2])
async def test_one_result_behind_five_hundred_of_another_owner_is_among_the_next_ten(
    stack: Stack, replicas: int
) -> None:
    async with analysing(stack, replicas=replicas, limit=IN_FLIGHT) as (server, bridges):
        server.seconds, server.staggered = 0.8, replicas * IN_FLIGHT
        await send(bridges, [recording(A) for _ in range(500)])
        # Bridges that have just begun do not know of each other's first requests.
        await until_true(lambda: len(server.done) >= replicas * IN_FLIGHT, "what was asked for first")
        one = recording(B)
        await send(bridges, [one])
        taken, done = len(server.taken), len(server.done)
        await until_true(lambda: one.subject in server.done, "B's result")
        assert server.taken.index(one.subject) - taken <= 3 * replicas, "it was among the next of each bridge"
        if replicas == 1:  # two count together once a second, so a few more may be under way before it
            assert server.done.index(one.subject) - done < 10
        assert done < 400, "A's were waiting"
        server.seconds = 0.01  # for the rest
        await until_true(lambda: len(server.done) == 501, "all results", limit_seconds=60)


async def test_a_busy_server_delays_nobody_behind_one_owners_flood_and_is_used_as_far_as_it_goes(stack: Stack) -> None:
    """Nobody told how much it bears."""
    flood, others = [recording(A) for _ in range(150)], [recording(f"user:{number:032x}") for number in range(12)]
    async with analysing(stack, replicas=2, places=IN_FLIGHT) as (server, bridges):
        await send(bridges, flood)
        before = len(server.done)
        await send(bridges, others)
        ids = {one.subject for one in others}
        await until_true(lambda: ids <= set(server.done), "the others' results")
        behind = max(server.done.index(one) for one in ids) - before
        assert behind < IN_FLIGHT + 3 * len(others), "in turn with A's, behind what was under way"
        for one in bridges:
            assert one.server.away_for() == 0, "busy is not away"
            assert one.server.warnings() == []
        await until_true(lambda: len(server.done) == len(flood) + len(others), "all results", limit_seconds=60)
        assert server.most == IN_FLIGHT
        assert server.refused < len(flood) / 2, "it is asked for what it bears"


async def test_owners_without_number_are_all_served(stack: Stack) -> None:
    recordings = [recording(f"user:{number % 60:032x}" if number % 3 else None) for number in range(300)]
    async with analysing(stack, replicas=2, limit=IN_FLIGHT) as (server, bridges):
        server.seconds = 0.02
        await send(bridges, recordings)
        await until_true(lambda: len(server.done) == 300, "all results", limit_seconds=60)
        assert len(set(server.done)) == 300, "each was asked for once"
