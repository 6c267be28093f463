"""Notifiers that go, or are not ready yet: their listeners are told when to come back, and hear everything once."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from local_stack.stack import Stack
from tests.contract.service_process import SERVICES, ServiceProcess
from tests.integration.test_stopping import GRACE_SECONDS, stop_and_await
from tests.support.answers import assert_problem
from tests.support.sori import Sori, new_token
from tests.support.sse import Block, followed, heard, listening
from tests.support.stacks import kill_and_await
from tests.support.waiting import until

LISTENERS = 40


@dataclass
class Heard:
    """What one listener heard of one stream, and when that ended."""

    blocks: list[Block]
    ended: float


def progress_at(stack: Stack, replica: str, job_id: str) -> str:
    return f"{stack.parts[replica].address}/tokens/analysis-progress/{job_id}"


async def test_a_notifier_that_stops_sends_its_listeners_away_one_after_the_other(
    stack: Stack, client: httpx.AsyncClient, sori: Sori
) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    begun = asyncio.Semaphore(0)

    async def listen() -> Heard:
        async with listening(client, progress_at(stack, "notifier-1", job_id), last_event_id="0") as stream:
            async for block in stream.all():
                if block.id == "4":
                    begun.release()
        # A stream that is cut instead of ended raises here.
        return Heard(stream.blocks, time.monotonic())

    listeners = [asyncio.create_task(listen()) for _ in range(LISTENERS)]
    for _ in listeners:
        await begun.acquire()
    stopped = asyncio.create_task(stop_and_await(stack, "notifier-1"))
    streams = await asyncio.gather(*listeners)
    assert await stopped < GRACE_SECONDS
    waits = [int(stream.blocks[-1].retry or 0) for stream in streams]
    assert all(1000 <= wait <= 3000 for wait in waits), "each is told last when to come back"
    assert len(set(waits)) > LISTENERS / 2
    ends = sorted(stream.ended for stream in streams)
    assert 2 < ends[-1] - ends[0] < GRACE_SECONDS / 2
    await sori.webhook(job_id, {"status": "success", "result": {}})
    rest = await heard(client, progress_at(stack, "notifier-2", job_id), last_event_id="4")
    assert [message.id for message in rest] == ["5"]


async def test_pages_outlive_all_notifiers(stack: Stack, sori: Sori) -> None:
    """Their browsers would give up for good if the edge, or a notifier that just began, answered anything but 200."""
    jobs = await asyncio.gather(*(sori.job(token_id=new_token("slow")) for _ in range(10)))
    pages = [asyncio.create_task(followed(sori.client, sori.progress_url(job_id))) for job_id in jobs]
    await kill_and_await(stack, "notifier-1", "notifier-2")
    for messages in await asyncio.gather(*pages):
        assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
        assert messages[-1].state["status"] == "completed"


async def test_a_page_waits_for_a_notifier_that_waits_for_its_back_ends(
    stack: Stack, client: httpx.AsyncClient, sori: Sori, tmp_path: Path
) -> None:
    job_id = (await sori.completed())["job_id"]
    (notifier,) = [service for service in SERVICES if service.name == "notifier"]
    async with ServiceProcess.running(notifier, stack.settings, tmp_path / "log") as process:
        await until(lambda: process.health(client, "/health/live"), "a live notifier")
        url = f"{process.url}/tokens/analysis-progress/{job_id}"
        async with listening(client, url) as stream:
            assert await stream.to_end() == []
        assert stream.response.status_code == 200
        (told,) = stream.blocks
        assert 2500 <= int(told.retry or 0) <= 7500
        answer = await client.get(url, headers={"Accept": "*/*", "Accept-Language": "en"})
        assert_problem(answer, 503, "unavailable", "en")
        page = asyncio.create_task(followed(client, url))
        for door in process.doors.values():
            await door.open()
        messages = await page
    assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
    assert messages[-1].state["status"] == "completed"
