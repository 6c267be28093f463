"""Notifiers that go, or are not ready yet: their listeners are told when to come back, and hear everything once."""

import asyncio
import re
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

    async def is_told_of_all() -> bool:
        # Events come in any order: the job may be at 90 before it is told that its recording was stored.
        history = (await sori.client.get(f"{sori.url}/jobs/{job_id}")).json()["history"]
        return {"audio.stored.v1", "analysis.requested.v1"} <= {line["type"] for line in history}

    await until(is_told_of_all, "a job that waits for its result")
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
    assert all(1000 <= wait <= 3000 for wait in waits), f"each is told last when to come back: {waits}"
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


async def test_a_notifier_that_waits_for_its_back_ends_says_so_and_then_serves_by_itself(
    stack: Stack, client: httpx.AsyncClient, sori: Sori, tmp_path: Path
) -> None:
    """To a page too: its browser is told by the edge when to come back."""
    job_id = (await sori.completed())["job_id"]
    (notifier,) = [service for service in SERVICES if service.name == "notifier"]
    async with ServiceProcess.running(notifier, stack.settings, tmp_path / "log") as process:
        await until(lambda: process.health(client, "/health/live"), "a live notifier")
        url = f"{process.url}/tokens/analysis-progress/{job_id}"
        for accept in ("text/event-stream", "*/*"):
            answer = await client.get(url, headers={"Accept": accept, "Accept-Language": "en"})
            assert_problem(answer, 503, "unavailable", "en")
        for door in process.doors.values():
            await door.open()

        async def serves() -> bool:
            return (await client.head(url)).status_code == 200

        await until(serves, "a notifier that serves")
        messages = await heard(client, url, last_event_id="0")
    assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
    assert messages[-1].state["status"] == "completed"


async def test_a_notifier_is_given_only_what_its_own_listeners_may_need(
    stack: Stack, client: httpx.AsyncClient, sori: Sori, tmp_path: Path
) -> None:
    (notifier,) = [service for service in SERVICES if service.name == "notifier"]
    async with ServiceProcess.running(notifier, stack.settings, tmp_path / "log") as process:
        for door in process.doors.values():
            await door.open()
        await process.until_checks(client, dict.fromkeys(notifier.checks, "up"))
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(sori.completed())
        assert await given(client, process) == 0, "nobody listens there"
        job_id = await sori.job(token_id=new_token("slow"))
        messages = await heard(client, f"{process.url}/tokens/analysis-progress/{job_id}", last_event_id="0")
        assert messages[-1].state["status"] == "completed"
        # What came before the listener is not among them; whatever its partition's other jobs are told of may be.
        assert 0 < await given(client, process) <= len(messages)


async def given(client: httpx.AsyncClient, process: ServiceProcess) -> int:
    """How many of the messages that replicas tell one another this one was given."""
    said = (await client.get(f"{process.url}/metrics")).text
    (count,) = re.findall(r"^sori_fan_out_messages_total (\S+)$", said, re.MULTILINE)
    return int(float(count))


async def test_listeners_of_one_job_hear_all_of_it_at_every_notifier(
    stack: Stack, client: httpx.AsyncClient, sori: Sori
) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    heard_at = [heard(client, progress_at(stack, f"notifier-{n}", job_id), last_event_id="0") for n in (1, 2)]
    for messages in await asyncio.gather(*heard_at):
        assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
        assert messages[-1].state["status"] == "completed"
