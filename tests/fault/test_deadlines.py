"""A webhook that came in time counts, even if nobody could look at it before the deadline of the last attempt."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.analysis_server import AnalysisServer
from tests.support.sori import Sori, new_token
from tests.support.stacks import kill_and_await, running_stack

pytestmark = [pytest.mark.full, pytest.mark.timeout(180)]

TIMEOUT_SECONDS = 5
PAST_THE_DEADLINE_SECONDS = 8.0
"""The wait itself is the fault: no bridge runs until the deadline has long passed."""
BRIDGES = ("analyzer-bridge-1", "analyzer-bridge-2")
JOBS = 10
RESULT = {"score": 1}


@pytest.fixture(scope="module")
def hasty(analysis_server: AnalysisServer) -> Iterator[Stack]:
    """A stack that asks once, and gives up soon."""
    settings = {"ANALYSIS_TIMEOUT": str(TIMEOUT_SECONDS), "ANALYSIS_ATTEMPTS": "1"}
    with running_stack({**settings, "TARGET_SERVER_URL": analysis_server.url}) as running:
        yield running


@pytest.fixture
def hasty_sori(hasty: Stack, client: httpx.AsyncClient) -> Sori:
    """The public surface of the hasty stack."""
    return Sori(client, hasty.url, hasty.settings["WEBHOOK_SECRET"])


async def test_a_webhook_wins_that_came_while_both_bridges_stood_still(hasty: Stack, hasty_sori: Sori) -> None:
    jobs = await asked(hasty_sori)
    with standing_still(hasty, *BRIDGES):
        await call_back(hasty_sori, jobs)
        await asyncio.sleep(PAST_THE_DEADLINE_SECONDS)
    await all_completed(hasty_sori, jobs)


async def test_a_webhook_wins_that_came_before_both_bridges_were_started_anew(hasty: Stack, hasty_sori: Sori) -> None:
    jobs = await asked(hasty_sori)
    with standing_still(hasty, *BRIDGES):
        await call_back(hasty_sori, jobs)
        await asyncio.sleep(PAST_THE_DEADLINE_SECONDS)
        await kill_and_await(hasty, *BRIDGES)
    await all_completed(hasty_sori, jobs)


async def test_a_webhook_wins_that_waits_for_mongodb(hasty: Stack, hasty_sori: Sori) -> None:
    jobs = await asked(hasty_sori)
    with standing_still(hasty, *BRIDGES):
        # A gateway looks the job up in MongoDB, so MongoDB stops only after the calls.
        await call_back(hasty_sori, jobs)
        with standing_still(hasty, "mongod"):
            signalled(hasty, *BRIDGES, by=signal.SIGCONT)
            await asyncio.sleep(PAST_THE_DEADLINE_SECONDS)
    await all_completed(hasty_sori, jobs)


async def test_a_job_that_nobody_calls_back_about_is_given_up_all_the_same(hasty: Stack, hasty_sori: Sori) -> None:
    (job_id, *_) = await asked(hasty_sori)
    with standing_still(hasty, *BRIDGES):
        await asyncio.sleep(PAST_THE_DEADLINE_SECONDS)
    assert (await hasty_sori.ended(job_id, limit_seconds=120))["error"]["code"] == "analysis_timed_out"


async def asked(sori: Sori) -> list[str]:
    """Jobs that the analysis server was asked about, and that it never calls back about by itself."""
    jobs = [await sori.job(token_id=new_token("never-calls-back")) for _ in range(JOBS)]
    for job_id in jobs:
        await sori.reached(job_id, 90)
    return jobs


async def call_back(sori: Sori, jobs: list[str]) -> None:
    for job_id in jobs:
        answer = await sori.webhook(job_id, {"status": "success", "result": RESULT})
        assert answer.status_code == 200


async def all_completed(sori: Sori, jobs: list[str]) -> None:
    states = [await sori.ended(job_id, limit_seconds=90) for job_id in jobs]
    assert [(state["status"], state.get("result")) for state in states] == [("completed", RESULT)] * len(jobs)


@contextmanager
def standing_still(stack: Stack, *parts: str) -> Iterator[None]:
    """Freeze these parts until the block ends; whoever talks to them can notice it only by the time that passes."""
    signalled(stack, *parts, by=signal.SIGSTOP)
    try:
        yield
    finally:
        signalled(stack, *parts, by=signal.SIGCONT)


def signalled(stack: Stack, *parts: str, by: signal.Signals) -> None:
    for part in parts:
        for pid in stack.pids(part):
            os.kill(pid, by)
