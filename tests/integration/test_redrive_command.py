"""`sorictl jobs redrive`, and what is offered after dead letters were discarded, on the real RabbitMQ and MongoDB."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from chassis.rabbitmq.declaring import declare_all
from contracts import topology
from contracts.events import UploadReceived
from contracts.job import Job, Status
from local_stack.stack import Stack
from tests.support import rabbitmqctl
from tests.support.back_ends import BackEnds, opened
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.operator import sorictl
from tests.support.sori import RECORDING, Sori, new_token

QUEUE = topology.UPLOADER_UPLOAD_RECEIVED
HELD_IN = topology.BRIDGE_AUDIO_STORED


@pytest.fixture(scope="module")
async def rabbitmq_url(stack: Stack) -> AsyncIterator[str]:
    """A virtual host in which everything is declared and no service consumes."""
    async with rabbitmqctl.virtual_host(stack) as url:
        async with await aio_pika.connect(url) as connection:
            await declare_all(await (await connection.channel()).get_underlay_channel())
        yield url


@pytest.fixture
async def back_ends(stack: Stack, rabbitmq_url: str, tmp_path: Path) -> AsyncIterator[BackEnds]:
    async with opened(stack, rabbitmq_url, tmp_path) as back_ends:
        await back_ends.taken(HELD_IN.dead_name)  # another test's
        yield back_ends


async def inserted(back_ends: BackEnds, status: Status = Status.PROCESSING, **fields: Any) -> UploadReceived:
    """Insert a job, and lay a message about it aside."""
    story = Story(str(uuid.uuid4()))
    event = story.upload_received()
    document = Job.received(event, None).model_dump(by_alias=True) | fields
    document["view"]["status"] = status.value
    await back_ends.jobs.insert_one(document)
    stored = story.audio_stored()
    await back_ends.put(HELD_IN.dead_name, stored.encode(), stored.id, {topology.REASON_HEADER: "a reason"})
    return event


async def redriven(back_ends: BackEnds) -> list[str]:
    """The jobs that were told again meanwhile, of which nothing may lie elsewhere."""
    names = [queue.name for queue in topology.QUEUES if queue != QUEUE]
    assert {name: await back_ends.count(name) for name in names} == dict.fromkeys(names, 0)
    return [message.message_id or "" for message in await back_ends.taken(QUEUE.name)]


async def test_a_job_is_told_again_as_it_was_told_first_but_marked_as_a_repeat(back_ends: BackEnds) -> None:
    event = await inserted(back_ends)
    said = await back_ends.sorictl("jobs", "redrive", event.subject)
    assert (said.status, said.out, said.err) == (0, "Redriven 1 of 1 job.\n", "")
    [message] = await back_ends.taken(QUEUE.name)
    assert (message.body, message.message_id) == (event.encode(), event.id)
    assert message.headers == {topology.REDRIVE_HEADER: 1}


async def test_jobs_that_are_not_told_again_are_named_and_the_others_are_told(back_ends: BackEnds) -> None:
    event = await inserted(back_ends)
    ended = await inserted(back_ends, Status.CANCELLED)
    asked = await inserted(back_ends, cancel_asked_at=datetime.now(UTC))
    unknown = str(uuid.uuid4())
    said = await back_ends.sorictl("jobs", "redrive", unknown, event.subject, ended.subject, asked.subject)
    assert (said.status, said.out) == (1, "Redriven 1 of 4 jobs.\n")
    assert said.err.splitlines() == [
        f"{unknown}: there is no such job.",
        f"{ended.subject}: it has ended (cancelled).",
        f"sorictl: {asked.subject}: it is to be cancelled.",
    ]
    assert await redriven(back_ends) == [event.id]


async def test_one_job_that_is_refused_is_one_sentence_and_needs_no_broker(back_ends: BackEnds) -> None:
    event = await inserted(back_ends, upload_received=None)
    said = await back_ends.sorictl("jobs", "redrive", event.subject, RABBITMQ_URL="amqp://127.0.0.1:1/")
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"sorictl: {event.subject}: its event is not kept; `sorictl setup` rebuilds those of earlier versions.\n"
    )


async def test_a_missing_queue_is_said(back_ends: BackEnds) -> None:
    event = await inserted(back_ends)
    async with back_ends.connection.channel() as channel:
        await channel.queue_delete(QUEUE.name)
        said = await back_ends.sorictl("jobs", "redrive", event.subject)
        await declare_all(await channel.get_underlay_channel())
    assert (said.status, said.out) == (1, "")
    assert said.err == (
        f"sorictl: RabbitMQ did not take a message for {QUEUE.name}; `sorictl setup` declares what is missing.\n"
    )


async def test_with_the_option_a_discard_redrives_the_jobs_that_have_not_ended(back_ends: BackEnds) -> None:
    event = await inserted(back_ends)
    await inserted(back_ends, Status.FAILED)
    said = await back_ends.sorictl("dead-letters", "discard", "--all", "--redrive", "--yes")
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-3:] == [
        "Discarded 2 of 2 dead letters.",
        "Redriven 1 of 2 jobs.",
        "1 job not: it has ended (failed).",
    ]
    assert await redriven(back_ends) == [event.id]
    assert await back_ends.count(HELD_IN.dead_name) == 0


async def test_without_it_a_discard_says_how_and_needs_no_database(back_ends: BackEnds) -> None:
    jobs = [(await inserted(back_ends)).subject for _ in range(7)]
    one = await back_ends.sorictl("dead-letters", "discard", "--job", jobs[0], "--yes", without="MONGODB_URL")
    assert (one.status, one.err) == (0, "")
    assert one.out.splitlines()[-2:] == ["To have it begin anew at once:", f"  sorictl jobs redrive {jobs[0]}"]
    many = await back_ends.sorictl("dead-letters", "discard", "--all", "--yes", without="MONGODB_URL")
    assert many.out.splitlines()[-2:] == [
        "To have them begin anew at once:",
        f"  sorictl jobs redrive {' '.join(jobs[1:6])} … (and 1 more)",
    ]
    assert await redriven(back_ends) == []


async def test_a_missing_setting_is_said_before_anything_is_discarded(back_ends: BackEnds) -> None:
    await inserted(back_ends)
    said = await back_ends.sorictl("dead-letters", "discard", "--all", "--redrive", "--yes", without="MONGODB_URL")
    assert said.status == 2
    assert said.err.startswith("sorictl: setting MONGODB_URL: Field required")
    assert await back_ends.count(HELD_IN.dead_name) == 1


@pytest.mark.parametrize(("answer", "is_redriven"), [("y", True), ("n", False)])
async def test_at_a_terminal_a_discard_asks_whether_to_redrive(
    back_ends: BackEnds, answer: str, is_redriven: bool
) -> None:
    event = await inserted(back_ends)
    said = await back_ends.asked("dead-letters", "discard", "--all", answers=f"y\n{answer}\n")
    assert said.status == 0, said
    assert "Redrive the job that it held?" in said.out
    assert ("Redriven 1 of 1 job." in said.out, "sorictl jobs redrive" in said.out.splitlines()[-1]) == (
        is_redriven,
        not is_redriven,
    )
    assert await redriven(back_ends) == ([event.id] if is_redriven else [])


async def test_a_redrive_that_fails_after_a_discard_says_how_to_repeat_it(back_ends: BackEnds) -> None:
    event = await inserted(back_ends)
    nowhere = "mongodb://without-a-password@127.0.0.1:1/sori?authMechanism=SCRAM-SHA-256"
    said = await back_ends.sorictl("dead-letters", "discard", "--all", "--redrive", "--yes", MONGODB_URL=nowhere)
    assert said.status == 1
    assert said.out.splitlines()[-1] == f"  sorictl jobs redrive {event.subject}"
    assert said.err == "sorictl: MongoDB at 127.0.0.1:1 cannot be reached the way that MONGODB_URL says.\n"


async def test_letters_that_name_no_job_offer_nothing(back_ends: BackEnds) -> None:
    await back_ends.put(HELD_IN.dead_name, b"no event", "1", {topology.REASON_HEADER: "a reason"})
    said = await back_ends.sorictl("dead-letters", "discard", "--all", "--redrive", "--yes", without="MONGODB_URL")
    assert (said.status, said.out.splitlines()[-1]) == (0, "Discarded 1 of 1 dead letter.")


async def test_a_job_whose_message_was_lost_is_taken_to_its_end(
    stack: Stack, sori: Sori, jobs: Any, bucket: Bucket, tmp_path: Path
) -> None:
    event = Story(str(uuid.uuid4()), new_token()).upload_received()
    await bucket.put(event.data.inbox_key, RECORDING)
    await jobs.insert_one(Job.received(event, None).model_dump(by_alias=True))
    environ = {name: stack.settings[name] for name in ("RABBITMQ_URL", "MONGODB_URL")}
    said = await sorictl(tmp_path, environ, "jobs", "redrive", event.subject)
    assert said.status == 0, said
    assert (await sori.ended(event.subject))["status"] == "completed"
