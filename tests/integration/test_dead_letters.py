"""Dead letters as an operator deals with them: sorictl against the real RabbitMQ, with the services running."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, HeadersType

from contracts import events, topology
from contracts.events import JobHeld, JobResumed
from contracts.job import Job
from local_stack.stack import Stack
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.events import Story
from tests.support.operator import Operator
from tests.support.sori import Sori, State, new_token
from tests.support.waiting import until

POISONED = topology.NOTIFIER_QUEUES[0]
QUIET = topology.UPLOADER_JOB_PURGED
"""Nothing else in these tests sets a message of this queue aside."""
LAST_TRY: HeadersType = {topology.ATTEMPT_HEADER: topology.MAX_ATTEMPTS}


@pytest.fixture
def operator(stack: Stack, tmp_path: Path) -> Operator:
    return Operator(stack.settings["RABBITMQ_URL"], tmp_path)


@pytest.fixture
async def channel(stack: Stack) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(stack.settings["RABBITMQ_URL"])
    async with connection:
        yield await connection.channel()


@pytest.fixture
def mark() -> str:
    """A reason that only this test's dead letters have."""
    return f"a test's own reason {uuid.uuid4().hex}"


async def lay_aside(broker: Broker, queue: topology.Queue, mark: str, count: int, body: bytes = b"no event") -> None:
    """Put messages straight among the dead letters, as a service sets them aside."""
    for number in range(count):
        headers: HeadersType = {topology.REASON_HEADER: mark, topology.ATTEMPT_HEADER: 1}
        await broker.put(queue.dead_name, body, f"{mark[-6:]}-{number:05}", headers)


async def listed(operator: Operator, *arguments: str) -> list[dict[str, Any]]:
    said = await operator.dead_letters("list", "--json", *arguments)
    assert said.status == 0, said
    return said.lines()


async def until_listed(operator: Operator, *arguments: str, count: int = 1) -> list[dict[str, Any]]:
    async def look() -> tuple[list[dict[str, Any]]] | None:
        found = await listed(operator, *arguments)
        return (found,) if len(found) == count else None

    return (await until(look, f"{count} × {arguments}"))[0]


async def test_a_replay_after_the_cause_is_gone_takes_the_held_job_to_its_end(
    operator: Operator, broker: Broker, sori: Sori, jobs: Any, analysis_server: AnalysisServer
) -> None:
    story = Story(str(uuid.uuid4()), token := new_token())
    await jobs.insert_one(
        Job.received(story.upload_received(), None).model_dump(by_alias=True, exclude={"upload_received"})
    )
    stored = story.audio_stored()
    await broker.put("notifier.audio.stored.v1", stored.encode(), stored.id)
    # As the bridge sets it aside; whatever the analysis server answers is recorded, so that is no cause any more.
    held_step = topology.held_step(topology.BRIDGE_AUDIO_STORED.name, stored.id, 0)
    hold = events.JobHeldData(
        queue=topology.BRIDGE_AUDIO_STORED.name, event_id=stored.id, event_type=stored.type, reason="a bug of the day"
    )
    set_aside: HeadersType = {**LAST_TRY, topology.SERVICE_VERSION_HEADER: "analyzer-bridge 0.1.0"}
    await broker.put(topology.BRIDGE_AUDIO_STORED.dead_name, stored.encode(), stored.id, set_aside)
    await broker.publish(
        JobHeld.new(story.job_id, hold, source="analyzer-bridge", traceparent=stored.traceparent, step=held_step)
    )

    async def held() -> State | None:
        state = await sori.state(story.job_id)
        return state if state["stage"] == "held" else None

    await until(held, "the job to be held")
    [letter] = await listed(operator, "--job", story.job_id)
    assert (letter["id"], letter["event_type"], letter["attempts"]) == (stored.id, stored.type, topology.MAX_ATTEMPTS)
    assert (letter["queue"], letter["replays"]) == (topology.BRIDGE_AUDIO_STORED.name, 0)
    assert letter["service_version"].startswith("analyzer-bridge ")
    table = await operator.dead_letters("list", "--job", story.job_id)
    assert all(
        part in table.out for part in (stored.id, story.job_id, "analyzer-bridge.audio.stored.v1: 1 dead letter")
    )
    assert max(map(len, table.out.splitlines())) <= 80
    assert "\x1b" not in table.out + table.err

    async with broker.overhearing() as overheard:
        said = await operator.dead_letters("replay", "--job", story.job_id, "--yes")
        assert (said.status, said.out.splitlines()[-1]) == (0, "Replayed 1 of 1 dead letter.")
        state = await sori.ended(story.job_id)
        [resumed] = overheard.of(story.job_id, JobResumed)
    assert state["status"] == "completed", state
    assert isinstance(resumed.data, events.JobResumedData)
    assert resumed.data.held_id == events.event_id(story.job_id, JobHeld.TYPE, held_step)
    assert len(await analysis_server.requests_for(token)) == 1
    assert await listed(operator, "--job", story.job_id) == []


async def test_a_message_goes_back_as_it_was_but_as_a_first_try_that_says_that_it_was_replayed(
    operator: Operator, broker: Broker, mark: str
) -> None:
    body = f'{{"no": "event", "mark": "{mark}"}}'.encode()
    message_id = uuid.uuid4().hex
    await broker.put(POISONED.name, body, message_id, {**LAST_TRY, "x-of-somebody": "kept"})
    await until_listed(operator, message_id)
    said = await operator.dead_letters("replay", message_id, "--yes", "-q", POISONED.name)
    assert said.status == 0, said

    async def back_again() -> dict[str, Any] | None:
        return next((letter for letter in await listed(operator, message_id) if letter["replays"]), None)

    letter = await until(back_again, "the poison among the dead letters again")
    assert (letter["replays"], letter["attempts"]) == (1, 1)
    message = await broker.dead_letter(POISONED, message_id)
    assert (message.body, message.headers["x-of-somebody"]) == (body, "kept")


async def test_one_message_is_shown_whole(operator: Operator, broker: Broker, mark: str) -> None:
    job_id, body = str(uuid.uuid4()), {"type": "job.purged.v9", "data": {"note": mark}}
    full = {**body, "id": mark[:40], "subject": job_id, "traceparent": events.continued_trace(None)}
    await lay_aside(broker, QUIET, mark, 1, json.dumps(full).encode())
    said = await operator.dead_letters("show", "--job", job_id)
    assert said.status == 0, said
    assert all(part in said.out for part in (job_id, mark, "job.purged.v9", f'"{topology.REASON_HEADER}": "{mark}"'))
    [shown] = (await operator.dead_letters("show", "--job", job_id, "--json")).lines()
    assert shown["event"] == full
    assert (await operator.dead_letters("discard", "--reason", mark, "--yes")).status == 0


async def test_a_message_that_the_broker_set_aside_by_itself_goes_back_and_can_be_retried(
    operator: Operator, broker: Broker, channel: AbstractChannel, sori: Sori, jobs: Any
) -> None:
    story = Story(str(uuid.uuid4()), new_token("http-500-once"))
    await jobs.insert_one(
        Job.received(story.upload_received(), None).model_dump(by_alias=True, exclude={"upload_received"})
    )
    stored = story.audio_stored()
    arguments = {**topology.BRIDGE_AUDIO_STORED.arguments, "x-delivery-limit": 1}
    name = f"a-killer-{story.job_id}"
    queue = await channel.declare_queue(name, durable=True, arguments=arguments)
    await broker.put(name, stored.encode(), stored.id)
    for _ in range(2):
        taken = await until(lambda: queue.get(fail=False), "the message")
        await taken.nack(requeue=True)
    [letter] = await until_listed(operator, "--job", story.job_id)
    assert (letter["reason"], letter["service_version"]) == ("delivered 50 times without an outcome", None)
    assert letter["last_failure"]
    [shown] = (await operator.dead_letters("show", "--job", story.job_id, "--json")).lines()
    assert shown["headers"]["x-death"][0]["queue"] == name
    assert (await operator.dead_letters("replay", "--job", story.job_id, "--yes")).status == 0
    # The analysis server's first answer is 500: the message waits in a retry queue on its way.
    assert (await sori.ended(story.job_id))["status"] == "completed"
    await queue.delete(if_unused=False, if_empty=False)


async def test_what_is_discarded_is_gone_and_the_rest_stays(operator: Operator, broker: Broker, mark: str) -> None:
    await lay_aside(broker, QUIET, f"{mark} out", 3)
    await lay_aside(broker, QUIET, f"{mark} in", 2)
    await lay_aside(broker, POISONED, f"{mark} out", 1)
    asked = await operator.dead_letters("discard", "--reason", f"{mark} OUT", "--queue", "uploader.*")
    assert (asked.status, "say --yes" in asked.err) == (2, True)
    assert len(await listed(operator, "--reason", mark)) == 6
    said = await operator.dead_letters("discard", "--reason", f"{mark} OUT", "--queue", "uploader.*", "--yes")
    assert (said.status, said.out.splitlines()[-1]) == (0, "Discarded 3 of 3 dead letters.")
    left = await listed(operator, "--reason", mark)
    assert sorted(letter["reason"] for letter in left) == [f"{mark} in"] * 2 + [f"{mark} out"]
    assert (await operator.dead_letters("discard", "--reason", mark, "--yes")).status == 0
    nothing = await operator.dead_letters("discard", "--reason", mark, "--yes")
    assert (nothing.status, nothing.err) == (1, "sorictl: no dead letter matches.\n")
    assert (await operator.dead_letters("list", "--reason", mark)).out == "No dead letter matches.\n"


async def test_two_operators_who_replay_the_same_lose_nothing_and_repeat_nothing(
    operator: Operator, broker: Broker, mark: str
) -> None:
    await lay_aside(broker, POISONED, mark, 60, body=mark.encode())
    both = await asyncio.gather(*(operator.dead_letters("replay", "--reason", mark, "--yes") for _ in range(2)))
    ids = {f"{mark[-6:]}-{number:05}" for number in range(60)}
    # They cannot be read, so each comes back, with another reason. What one had in hand the other may not have seen.
    replayed = sum(int(done[1]) for said in both if (done := re.search(r"^Replayed (\d+)", said.out, re.MULTILINE)))
    unseen = await until_listed(operator, "--reason", mark, count=60 - replayed)
    if unseen:
        assert (await operator.dead_letters("replay", "--reason", mark, "--yes")).status == 0, both
    found = await until_listed(operator, *ids, "--reason", "invalid event", count=60)
    assert {letter["id"] for letter in found} == ids
    assert [letter["replays"] for letter in found] == [1] * 60
    assert (await operator.dead_letters("discard", *ids, "--yes")).status == 0


async def test_what_is_only_looked_at_stays_where_it_was(operator: Operator, broker: Broker, mark: str) -> None:
    await lay_aside(broker, QUIET, mark, 200)
    for _ in range(3):
        found = await listed(operator, "--reason", mark)
        assert [letter["id"][-5:] for letter in found] == [f"{number:05}" for number in range(200)]
    assert (await operator.dead_letters("discard", "--reason", mark, "--yes")).status == 0


@pytest.mark.timeout(300)  # on a loaded machine: thousands of messages, each taken for itself
async def test_of_many_some_are_dealt_with_and_all_keep_their_order(
    operator: Operator, broker: Broker, mark: str
) -> None:
    await lay_aside(broker, QUIET, mark, 1200)
    first = await operator.dead_letters("list", "--json", "--reason", mark)
    assert [letter["id"][-5:] for letter in first.lines()] == [f"{number:05}" for number in range(1000)]
    assert "There are more than 1,000" in first.err
    said = await operator.dead_letters("discard", "--reason", mark, "--limit", "200", "--yes")
    assert said.status == 0, said
    left = [letter["id"] for letter in await listed(operator, "--reason", mark, "--limit", "5000")]
    assert len(set(left)) == len(left) == 1000
    # What was looked at lies behind the rest now: the circle is the same, begun elsewhere.
    assert sum(after < before for before, after in pairwise(left)) <= 1
    assert (await operator.dead_letters("discard", "--reason", mark, "--limit", "5000", "--yes")).status == 0


async def test_a_wrong_password_or_place_is_said_in_a_sentence(operator: Operator, stack: Stack) -> None:
    url = stack.settings["RABBITMQ_URL"]
    scheme, _, rest = url.partition("://")
    _, _, place = rest.rpartition("@")
    for wrong, sentence in (
        (f"{scheme}://sori:hunter2@{place}", "does not accept the user and password in RABBITMQ_URL."),
        (f"{url.rstrip('/')}/nowhere", "has no such virtual host as RABBITMQ_URL names, or not for this user."),
    ):
        said = await operator.dead_letters("list", environ={"RABBITMQ_URL": wrong})
        assert (said.status, said.out) == (1, "")
        assert said.err == f"sorictl: RabbitMQ at {place.rstrip('/')} {sentence}\n"
