"""Whatever is killed, and whenever: every job that was promised completes, once, with its own result."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from contracts import topology
from local_stack.stack import Stack
from tests.fault.crowd import Crowd
from tests.fault.kills import BACK_ENDS, Kills
from tests.support import bucket, rabbitmqctl
from tests.support.front_end import FrontEnd
from tests.support.kept_logs import kept_on_failure
from tests.support.sori import State
from tests.support.stacks import running_stack
from tests.support.waiting import until

PACE_SECONDS = 2.0
"""This is the pace of the promise, not a wait for a fact: the next part is killed 2 s after the last is ready again."""
INBOX_MAX_AGE_SECONDS = 30
"""Longer than an upload takes while everything else is killed."""
SETTINGS = {
    "ANALYSIS_TIMEOUT": "8",
    # A killed analysis server forgets what it had in hand; no job may be given up for that.
    "ANALYSIS_ATTEMPTS": "100",
    "INBOX_MAX_AGE": str(INBOX_MAX_AGE_SECONDS),
    "JOB_MAX_AGE": "86400",
}
END_SECONDS = 240.0
"""How long after the last kill the last job may end: a message that failed often waits up to a minute."""
BURST, SMALL_BURST = 6, 3
"""How many users send at once, at least: BURST before a service is killed, so that both its replicas are busy for a
moment; SMALL_BURST before a back end is."""


@dataclass(frozen=True)
class Form:
    """How long a run is."""

    jobs: int
    """The least number of jobs; there are more when it takes more to kill every part as often as is wanted."""
    services: int
    """How often each service is killed with something in hand."""
    back_ends: int
    """How often each back end, and the analysis server, is killed."""

    @property
    def wanted(self) -> dict[str, int]:
        """How often each part is killed, by name."""
        return dict.fromkeys(topology.SERVICES, self.services) | dict.fromkeys(BACK_ENDS, self.back_ends)


SHORT = Form(jobs=100, services=3, back_ends=3)
FULL = Form(jobs=500, services=10, back_ends=10)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(SHORT, id="100-jobs", marks=[pytest.mark.short, pytest.mark.timeout(900)]),
        pytest.param(FULL, id="500-jobs", marks=[pytest.mark.full, pytest.mark.timeout(2700)]),
    ],
)
async def test_nothing_is_lost_and_nothing_happens_twice_whatever_is_killed(form: Form, seed: int) -> None:
    with running_stack(SETTINGS) as stack, kept_on_failure(stack, f"kills-{form.jobs}-jobs-seed-{seed}"):
        async with _front_end(stack) as front_end:
            kills, crowd = Kills(stack, front_end, seed, form.wanted), Crowd(front_end)
            try:
                await _kill_while_they_send(kills, crowd, form)
            finally:
                await crowd.end(END_SECONDS)
            complaints = crowd.complaints(await _states(stack, crowd)) + await _leftovers(stack, crowd)
        _report(kills, crowd, complaints)
        assert not complaints, f"{len(complaints)} complaints, the first: {complaints[0]}"


@asynccontextmanager
async def _front_end(stack: Stack) -> AsyncIterator[FrontEnd]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as client:
        yield FrontEnd(client, stack.url)


async def _kill_while_they_send(kills: Kills, crowd: Crowd, form: Form) -> None:
    """Kill one part after another, until each was killed as often as is wanted and all jobs have begun."""
    while kills.lacking or len(crowd.users) < form.jobs:
        most = 3 * sum(form.wanted.values())
        assert len(kills.done) < most, f"this run is invalid: after {most} kills it lacks {dict(kills.lacking)}"
        part = kills.choose()
        # The size of the bursts is such that the last one begins with about the last kill.
        share = (form.jobs - len(crowd.users)) // max(1, kills.lacking.total())
        kill = await kills.kill(part, crowd.burst(max(SMALL_BURST if part in BACK_ENDS else BURST, share)))
        await asyncio.sleep(PACE_SECONDS)
        kills.judge(kill)
        print(f"{kill}; {crowd.under_way} of {len(crowd.users)} jobs under way", flush=True)


async def _states(stack: Stack, crowd: Crowd) -> dict[str, State]:
    """Every promised job as anybody can read it now."""
    async with httpx.AsyncClient(base_url=stack.url, timeout=30, trust_env=False) as client:
        promised = [user.job_id for user in crowd.users if user.job_id]
        return {job_id: (await client.get(f"/tokens/analysis-result/{job_id}")).json() for job_id in promised}


async def _leftovers(stack: Stack, crowd: Crowd) -> list[str]:
    """Messages, jobs and objects that are left where there must be none, or that are missing."""
    promised = {user.job_id for user in crowd.users if user.job_id}
    wanted = {f"audio/{job_id}.wav" for job_id in promised}
    messages = await _last_seen(lambda: _messages(stack), limit_seconds=90)
    async with bucket.opened(stack.settings) as objects:
        inbox = await _last_seen(objects.unfinished, limit_seconds=2 * INBOX_MAX_AGE_SECONDS)
        audio = await objects.keys("audio/")
    found: dict[str, Collection[str]] = {
        "queues are not empty": messages,
        "jobs were promised to nobody": await _job_ids(stack) - promised,
        "audio objects are nobody's": audio - wanted,
        "audio objects are missing": wanted - audio,
        "objects or open multipart uploads are left in the inbox": inbox,
    }
    return [f"{len(things)} {what}: {sorted(things)}" for what, things in found.items() if things]


async def _job_ids(stack: Stack) -> set[str]:
    async with AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"]) as mongodb:
        return {job["_id"] async for job in mongodb.get_default_database()["jobs"].find({}, {"_id": 1})}


async def _messages(stack: Stack) -> set[str]:
    """The queues that hold messages, with how many: dead letters and waiting retries too."""
    counts = await asyncio.to_thread(rabbitmqctl.messages, stack)
    assert {queue.name for queue in topology.QUEUES} <= counts.keys()
    return {f"{queue}: {count}" for queue, count in counts.items() if count}


async def _last_seen(look: Callable[[], Awaitable[set[str]]], limit_seconds: float) -> set[str]:
    """Return an empty set as soon as nothing is left, else what is still there after `limit_seconds`."""
    seen: set[str] = set()

    async def gone() -> bool:
        nonlocal seen
        seen = await look()
        return not seen

    with suppress(AssertionError):
        await until(gone, "nothing left", limit_seconds=limit_seconds)
    return seen


def _report(kills: Kills, crowd: Crowd, complaints: list[str]) -> None:
    """Print the counts and the complaints."""
    made = Counter(kill.service for kill in kills.done)
    print(f"\n{'part':18}{'killed':>8}{'with work in hand':>20}")
    for part in (*topology.SERVICES, *BACK_ENDS):
        print(f"{part:18}{made[part]:8}{kills.valid[part] if part in topology.SERVICES else '':>20}")
    print(f"{len(crowd.users)} jobs; {crowd.content} complete with the right result; {len(complaints)} complaints")
    print("\n".join(complaints), flush=True)
