"""Stopping well: no message is taken any more, work in hand ends, the process exits with 0, and nothing is lost."""

import asyncio
import re
import signal
import time

import httpx
import pytest

from contracts import topology
from local_stack import processes
from local_stack.stack import Stack
from tests.support.analysis_server import AnalysisServer
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.sse import followed
from tests.support.waiting import until, until_true

GRACE_SECONDS = 20
AT_ONCE = 8
JOBS_PER_RESTART = 6
PARTS = tuple(f"{service}-{replica}" for service in topology.SERVICES for replica in (1, 2))


async def stop_and_await(stack: Stack, part: str) -> float:
    """Tell a part to stop; returns the seconds until it had ended, once the process manager has it ready again."""
    before = set(stack.pids(part))
    said = stack.log("supervisord").stat().st_size
    began = time.monotonic()
    processes.kill(before, signal.SIGTERM)
    await until_true(lambda: not before & set(stack.pids(part)), f"the end of {part}", limit_seconds=GRACE_SECONDS)
    took = time.monotonic() - began
    await until_true(lambda: exit_status(stack, said, part) is not None, f"the process manager's word on {part}")
    assert exit_status(stack, said, part) == 0
    await until_true(lambda: bool(stack.pids(part)), f"a new {part}")
    await asyncio.to_thread(stack.wait_until_ready, part)
    return took


def exit_status(stack: Stack, since: int, part: str) -> int | None:
    """What the process manager says that the part ended with."""
    with stack.log("supervisord").open("rb") as log:
        log.seek(since)
        found = re.search(rf"exited: {part} \(exit status (\d+)", log.read().decode())
    return int(found[1]) if found else None


@pytest.mark.timeout(300)
async def test_rolling_restarts_under_load_lose_and_repeat_nothing(
    stack: Stack, sori: Sori, analysis_server: AnalysisServer
) -> None:
    restarts = iter(PARTS)
    tokens: list[str] = []
    going_on = True

    async def restart_all() -> None:
        nonlocal going_on
        for part in restarts:
            took = await stop_and_await(stack, part)
            print(f"{part} stopped in {took:.1f} s")
        going_on = False

    async def send_and_follow() -> None:
        while going_on:
            token_id = new_token()
            tokens.append(token_id)
            job_id = await accepted(sori, token_id, len(tokens))
            messages = await followed(sori.client, sori.progress_url(job_id))
            assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
            assert messages[-1].state["status"] == "completed"
            assert messages[-1].state["result"]["video_id"] == token_id

    await asyncio.gather(restart_all(), *(send_and_follow() for _ in range(AT_ONCE)))
    assert len(tokens) > len(PARTS) * JOBS_PER_RESTART
    asked = {token_id: await analysis_server.requests_for(token_id) for token_id in tokens}
    print(f"{len(tokens)} jobs completed during {len(PARTS)} restarts")
    again = [
        [
            (round(request.at, 2), request.webhook_url, [call.status for call in request.webhooks])
            for request in requests
        ]
        for requests in asked.values()
        if len(requests) != 1
    ]
    for requests in again:
        print(*requests, sep="\n")
    assert not again, f"{len(again)} were asked for another number of times than once"


async def accepted(sori: Sori, token_id: str, seed: int) -> str:
    """Send a recording, again when the gateway that it had reached was just going; gives the job that was promised."""

    async def look() -> str | None:
        try:
            answer = await sori.upload(wav(0.3, seed=seed), token_id, headers={"Idempotency-Key": token_id})
        except httpx.TransportError:
            return None
        return str(answer.json()["job_id"]) if answer.status_code == 202 else None

    return await until(look, "an accepted upload")
