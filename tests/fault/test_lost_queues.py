"""Queues that are deleted with what lies in them, and RabbitMQ away for long while webhooks come: no job is lost."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from contracts import events, topology
from local_stack.stack import Stack
from tests.support import rabbitmqctl
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.proxied import REPLICAS, SETTINGS, Proxied
from tests.support.rounds import Rounds, Sent
from tests.support.sori import Sori, new_token
from tests.support.stacks import kill_and_await
from tests.support.waiting import until

JOBS = 40
MENDED_SECONDS = 150.0
"""A lost webhook is asked for again when its deadline has passed and the bridges have consumed for 75 s."""
STARVED_SECONDS = 200.0
"""Starved consumers begin anew after 60 s; a wait of 120 s between two redrives may have begun before that."""
OUTAGE_SECONDS = 3 * float(SETTINGS["ANALYSIS_TIMEOUT"]) + 3
ANALYSIS_COMPLETED = next(queue for queue in topology.NOTIFIER_QUEUES if queue.event == events.AnalysisCompleted)
LOST = [
    pytest.param(topology.UPLOADER_UPLOAD_RECEIVED, id="upload-received"),
    pytest.param(topology.BRIDGE_AUDIO_STORED, id="audio-stored", marks=pytest.mark.full),
    pytest.param(ANALYSIS_COMPLETED, id="analysis-completed", marks=pytest.mark.full),
]
REPLACED = [
    pytest.param([topology.UPLOADER_UPLOAD_RECEIVED], id="one", marks=pytest.mark.short),
    pytest.param(
        [
            topology.UPLOADER_UPLOAD_RECEIVED,
            topology.BRIDGE_AUDIO_STORED,
            topology.BRIDGE_WEBHOOK_RECEIVED,
            ANALYSIS_COMPLETED,
        ],
        id="four",
        marks=pytest.mark.full,
    ),
]
FIRST, SECOND = {"score": 1}, {"score": 2}

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
async def whole(hurried: Proxied) -> None:
    """Every test begins with a stack that is ready."""
    await asyncio.to_thread(hurried.stack.wait_until_ready, *hurried.service_pids())


@pytest.mark.parametrize("queue", LOST)
async def test_jobs_whose_messages_were_deleted_with_their_queue_complete(
    hurried: Proxied, hurried_broker: Broker, hurried_rounds: Rounds, queue: topology.Queue
) -> None:
    with standing_still(hurried.stack, queue.service):
        jobs = [await hurried_rounds.accepted() for _ in range(JOBS)]
        await until_in(hurried.stack, queue, JOBS)
        await hurried_broker.delete(queue)
        hurried_rounds.say(f"{queue.name} is deleted, with {JOBS} messages")
        # What its consumers have in hand is lost as well.
        await kill_and_await(hurried.stack, *replicas(queue.service))
    await all_complete(hurried_rounds, jobs, MENDED_SECONDS)


async def test_jobs_go_on_whose_messages_consumers_had_in_hand_when_their_queue_was_deleted(
    hurried: Proxied, hurried_broker: Broker, hurried_rounds: Rounds
) -> None:
    """Some are done though they cannot be acknowledged any more, the others are lost."""
    queue = topology.UPLOADER_UPLOAD_RECEIVED
    with standing_still(hurried.stack, queue.service):
        jobs = [await hurried_rounds.accepted() for _ in range(JOBS)]
        await until_in(hurried.stack, queue, JOBS)
        left = await hurried_broker.waiting(queue.name)
        assert left > 0
        await hurried_broker.delete(queue)
        hurried_rounds.say(f"{queue.name} is deleted; {left} messages lay in it")
    await all_complete(hurried_rounds, jobs, MENDED_SECONDS)


@pytest.mark.full
async def test_jobs_whose_webhooks_were_deleted_with_their_queue_are_asked_for_again(
    hurried: Proxied,
    hurried_broker: Broker,
    hurried_sori: Sori,
    analysis_server: AnalysisServer,
    *,
    hurried_rounds: Rounds,
) -> None:
    queue = topology.BRIDGE_WEBHOOK_RECEIVED
    jobs = await asked(hurried_sori)
    with standing_still(hurried.stack, queue.service):
        for job_id in jobs.values():
            assert (await hurried_sori.webhook(job_id, success(FIRST))).status_code == 200
        await until_in(hurried.stack, queue, len(jobs))
        await hurried_broker.delete(queue)
        hurried_rounds.say(f"{queue.name} is deleted, with {len(jobs)} messages")
        await kill_and_await(hurried.stack, *replicas(queue.service))
    began = time.monotonic()
    for token_id, job_id in jobs.items():
        await analysis_server.request_for(token_id, count=2, limit_seconds=MENDED_SECONDS)
        assert (await hurried_sori.webhook(job_id, success(SECOND), attempt=2)).status_code == 200
    hurried_rounds.say(f"asked for again within {time.monotonic() - began:.1f} s")
    await all_have(hurried_sori, jobs, SECOND)


@pytest.mark.parametrize("queues", REPLACED)
async def test_jobs_complete_whose_queues_were_deleted_and_declared_again_at_once(
    hurried: Proxied, hurried_broker: Broker, hurried_rounds: Rounds, queues: list[topology.Queue]
) -> None:
    """RabbitMQ starves the consumers of such a queue; nobody is told."""
    before = hurried.service_pids()
    jobs = [await hurried_rounds.accepted() for _ in range(JOBS // 2)]
    for queue in queues:
        await hurried_broker.replace(queue)
        hurried_rounds.say(f"{queue.name} is replaced")
    jobs += [await hurried_rounds.accepted() for _ in range(JOBS // 2)]
    await all_complete(hurried_rounds, jobs, STARVED_SECONDS)
    assert hurried.service_pids() == before


async def test_the_first_webhook_counts_that_came_while_rabbitmq_was_away_for_three_deadlines(
    hurried: Proxied,
    hurried_sori: Sori,
    hurried_database: Any,
    analysis_server: AnalysisServer,
    *,
    hurried_rounds: Rounds,
) -> None:
    """Of half of the jobs the analysis server itself calls, as soon as they are asked for; of the others, the test."""
    kept = hurried_database["webhooks"]
    jobs = await asked(hurried_sori)
    slow = [await hurried_rounds.accepted("slow") for _ in range(len(jobs))]
    called = [await analysis_server.request_for(job.token_id) for job in slow]
    for job in slow:
        # A bridge that has asked and could not tell so would ask again when its message is redelivered.
        await hurried_sori.reached(job.job_id, 90)
    with hurried.away("rabbitmq"):
        began = time.monotonic()
        for number, job_id in enumerate(jobs.values()):
            # The outage itself is what is waited for: the calls come all the while.
            await asyncio.sleep(max(0.0, began + OUTAGE_SECONDS * number / len(jobs) - time.monotonic()))
            assert (await hurried_sori.webhook(job_id, success(FIRST))).status_code == 200
            assert (await hurried_sori.webhook(job_id, success(SECOND))).status_code == 200
        calls = [await analysis_server.webhook_of(request) for request in called]
        assert {call.status for call in calls} == {200}
        await asyncio.sleep(max(0.0, began + OUTAGE_SECONDS - time.monotonic()))
        kept_then = await kept.count_documents({})
        hurried_rounds.say(f"{kept_then} webhooks are kept; RabbitMQ was away for {time.monotonic() - began:.1f} s")
        assert kept_then >= 2 * len(jobs)
    began = time.monotonic()
    await all_have(hurried_sori, jobs, FIRST)
    await all_complete(hurried_rounds, slow, MENDED_SECONDS)
    hurried_rounds.say(f"every job is completed {time.monotonic() - began:.1f} s after the end of the outage")

    async def none_is_kept() -> bool:
        return bool(await kept.count_documents({}) == 0)

    await until(none_is_kept, "no webhook is kept any more")
    tokens = [*jobs, *(job.token_id for job in slow)]
    assert [len(await analysis_server.requests_for(token_id)) for token_id in tokens] == [1] * len(tokens)


async def asked(sori: Sori) -> dict[str, str]:
    """Jobs, by their tokens, that the analysis server was asked about and never calls back about by itself."""
    jobs = {
        token_id: await sori.job(token_id=token_id) for token_id in [new_token("never-calls-back") for _ in range(10)]
    }
    for job_id in jobs.values():
        await sori.reached(job_id, 90)
    return jobs


def success(result: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "result": result}


async def all_have(sori: Sori, jobs: dict[str, str], result: dict[str, Any]) -> None:
    states = [await sori.ended(job_id, limit_seconds=MENDED_SECONDS) for job_id in jobs.values()]
    assert [(state["status"], state.get("result")) for state in states] == [("completed", result)] * len(jobs)


async def all_complete(rounds: Rounds, jobs: list[Sent], limit_seconds: float) -> None:
    """Listen to each job's end, as browsers do, and check it."""
    began = time.monotonic()
    async with asyncio.timeout(limit_seconds):
        await asyncio.gather(*(rounds.ended(job, began) for job in jobs))
    for job in jobs:
        await rounds.check(job)
    rounds.say(f"{len(jobs)} jobs completed, the slowest after {max(job.ended_after_seconds for job in jobs):.1f} s")


async def until_in(stack: Stack, queue: topology.Queue, count: int) -> None:
    """Wait until a queue holds so many messages, those that its consumers have in hand among them."""

    async def look() -> bool:
        return (await asyncio.to_thread(rabbitmqctl.messages, stack)).get(queue.name, 0) >= count

    await until(look, f"{count} messages in {queue.name}", every_seconds=0.5)


def replicas(service: str) -> list[str]:
    return [f"{service}-{replica}" for replica in range(1, REPLICAS + 1)]


@contextmanager
def standing_still(stack: Stack, service: str) -> Iterator[None]:
    """Freeze every replica of a service until the block ends."""
    pids = [pid for name in replicas(service) for pid in stack.pids(name)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in set(pids) & {pid for name in replicas(service) for pid in stack.pids(name)}:
            os.kill(pid, signal.SIGCONT)
