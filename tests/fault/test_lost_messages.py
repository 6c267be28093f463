"""Whichever of its messages a job loses, acknowledged and not handled: it reaches the end that it should."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from contracts import topology
from local_stack.stack import Stack
from tests.fault.lives import EXPIRED, WEBHOOK, Life, World, live_all, never_together
from tests.support import bucket, rabbitmqctl
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import connected
from tests.support.kept_logs import kept_on_failure
from tests.support.sori import Sori
from tests.support.stacks import running_stack
from tests.support.swallowing import Swallowing
from tests.support.waiting import until

SETTINGS = {"REDRIVE_AFTER": "2", "ANALYSIS_TIMEOUT": "5"}
NAMES = [queue.name for queue in topology.QUEUES]
EXPIRES_SOON = {"JOB_MAX_AGE": "45"}
"""Longer than any other job stands still, and shorter than a bridge takes until it asks for anything again."""

Plans = Sequence[frozenset[str]]


@dataclass(frozen=True)
class Run:
    """Jobs by the queues in which each loses its message, and what the stack is given besides SETTINGS."""

    plans: Plans
    settings: dict[str, str]
    limit_seconds: float
    """How long one job may take. A held job is told again after 60 times REDRIVE_AFTER only."""


def singles(times: int) -> Run:
    """Each queue so many times."""
    return Run([frozenset({name}) for name in NAMES] * times, EXPIRES_SOON, limit_seconds=120)


def pairs(times: int, *, expire: bool) -> Run:
    """Each pair of queues so many times: those with the end of a job that expires, or all others."""
    found = [frozenset(pair) for pair in itertools.combinations(NAMES, 2) if not never_together(*pair)]
    chosen = [pair for pair in found if bool(pair & EXPIRED) == expire]
    return Run(chosen * times, EXPIRES_SOON if expire else {}, limit_seconds=300)


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(singles(2), id="each-queue-twice", marks=[pytest.mark.short, pytest.mark.timeout(300)]),
        pytest.param(singles(10), id="each-queue-ten-times", marks=[pytest.mark.full, pytest.mark.timeout(600)]),
        pytest.param(pairs(3, expire=False), id="each-pair", marks=[pytest.mark.full, pytest.mark.timeout(1800)]),
        pytest.param(pairs(3, expire=True), id="expired-pairs", marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
async def test_every_job_reaches_its_end_whichever_of_its_messages_it_loses(
    run: Run, analysis_server: AnalysisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    swallowing = Swallowing(tmp_path / "swallowed")
    given = {**SETTINGS, **run.settings, "TARGET_SERVER_URL": analysis_server.url}
    began = time.monotonic()
    with running_stack(given, swallowing.prepare) as stack, kept_on_failure(stack, request.node.callspec.id):
        async with _world(stack, analysis_server, swallowing, run.limit_seconds) as world:
            print(f"\n{time.monotonic() - began:7.1f} s  the stack is up", flush=True)
            lives, complaints = [], []
            for part in _in_order(run.plans):
                more, wrong = await live_all(world, part)
                lives += more
                complaints += wrong
                print(f"{time.monotonic() - began:7.1f} s  {len(lives)} jobs have ended", flush=True)
            complaints += await _leftovers(stack, world, lives)
    _report(lives, complaints)
    assert not complaints, f"{len(complaints)} complaints, the first: {complaints[0]}"


def _in_order(plans: Plans) -> list[Plans]:
    """Those that lose their webhook last.

    A bridge asks nothing again until it has consumed for 75 s. A job that stood still for so long would expire.
    """
    last = [plan for plan in plans if WEBHOOK in plan and not plan & EXPIRED]
    rest = [plan for plan in plans if plan not in last]
    # What expires takes longest, so it begins first.
    first = [plan for plan in rest if plan & EXPIRED]
    return [part for part in ([*first, *(plan for plan in rest if not plan & EXPIRED)], last) if part]


@asynccontextmanager
async def _world(
    stack: Stack, server: AnalysisServer, swallowing: Swallowing, limit_seconds: float
) -> AsyncIterator[World]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with (
        httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client,
        connected(stack.settings["RABBITMQ_URL"]) as broker,
        bucket.opened(stack.settings) as objects,
        AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"], tz_aware=True) as mongodb,
    ):
        sori = Sori(client, stack.url, stack.settings["WEBHOOK_SECRET"])
        yield World(sori, server, broker, objects, mongodb.get_default_database(), swallowing, limit_seconds)


async def _leftovers(stack: Stack, world: World, lives: Sequence[Life]) -> list[str]:
    """What is left where nothing must be, and what is missing."""
    wanted = {f"audio/{life.job_id}.wav" for life in lives if life.has_audio}
    kept = await world.bucket.keys("audio/")
    open_jobs = await world.database["jobs"].count_documents({"view.status": "processing"})
    purges = await world.database["jobs"].count_documents({"purge_asked_at": {"$ne": None}})
    found = {
        "audio objects are nobody's": kept - wanted,
        "audio objects are missing": wanted - kept,
        "queues are not empty": await _messages(stack),
        "jobs have not ended": open_jobs,
        "purges are not done": purges,
    }
    return [f"{what}: {things}" for what, things in found.items() if things]


async def _messages(stack: Stack) -> dict[str, int]:
    """The queues that still hold messages, dead letters too, once they have had some time to become empty."""
    seen: dict[str, int] = {}

    async def empty() -> bool:
        nonlocal seen
        counts = await asyncio.to_thread(rabbitmqctl.messages, stack)
        assert set(NAMES) <= counts.keys()
        seen = {name: count for name, count in counts.items() if count}
        return not seen

    try:
        await until(empty, "empty queues")
    except AssertionError:
        return seen
    return {}


def _report(lives: Sequence[Life], complaints: Sequence[str]) -> None:
    """Print the counts, how long after its upload the last job heard its end, and the complaints."""
    counts = Counter(name for life in lives for name in life.queues)
    print(f"{len(lives)} jobs, {counts.total()} messages to swallow, {len(complaints)} complaints")
    for name in NAMES:
        ended = [life.ended_after_seconds for life in lives if name in life.queues]
        print(f"{name:42}{counts[name]:5}{max(ended, default=0.0):9.1f} s")
    print("\n".join(complaints), flush=True)
