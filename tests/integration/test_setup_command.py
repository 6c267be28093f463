"""`sorictl setup` on the real RabbitMQ and MongoDB: what earlier versions have left becomes what this one needs."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from pymongo import MongoClient

from chassis.rabbitmq.declaring import declare_all
from contracts import events, topology
from contracts.events import JobHeld, JobPurged, UploadReceived
from contracts.job import Job, Status
from local_stack.stack import Stack
from sorictl import job_store, rabbitmq, redriving, retired
from sorictl.job_store import BroughtUp
from sorictl.letter import Message, resumed
from sorictl.retired import TakenOver
from tests.support import rabbitmqctl
from tests.support.back_ends import BackEnds, opened
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.sori import RECORDING, Sori, new_token

NEW = topology.UPLOADER_UPLOAD_RECEIVED
OLD = "uploader.upload-received-of-old"
NOTHING_TO_DO = (
    "RabbitMQ: exchanges and queues are declared; 0 old exchanges removed.\nMongoDB: nothing was left to do.\n"
)


@pytest.fixture(scope="module")
async def rabbitmq_url(stack: Stack) -> AsyncIterator[str]:
    """A virtual host that knows nothing of Sori before this module's first test."""
    async with rabbitmqctl.virtual_host(stack) as url:
        yield url


@pytest.fixture
async def back_ends(stack: Stack, rabbitmq_url: str, tmp_path: Path) -> AsyncIterator[BackEnds]:
    async with opened(stack, rabbitmq_url, tmp_path) as back_ends:
        yield back_ends


@pytest.fixture
async def back_ends_of_services(stack: Stack, jobs: Any, tmp_path: Path) -> AsyncIterator[BackEnds]:
    """Those that the stack's services use."""
    rabbitmq_url, mongodb_url = stack.settings["RABBITMQ_URL"], stack.settings["MONGODB_URL"]
    async with await aio_pika.connect(rabbitmq_url) as connection:
        yield BackEnds(rabbitmq_url, mongodb_url, jobs, connection, tmp_path)


def document(status: Status = Status.PROCESSING, **fields: Any) -> dict[str, Any]:
    """A job as an earlier version has left it."""
    job = Job.received(Story(str(uuid.uuid4())).upload_received(), "a.wav")
    newer = {"upload_received", "publish_at", "redrives", "redriven_at", "cancel_asked_at", "purge_asked_at"}
    made = job.model_dump(by_alias=True, exclude=newer)
    made["view"]["status"] = status.value
    return {**made, **fields}


async def declare_old(back_ends: BackEnds) -> None:
    """Declare the topology, and a queue with its dead letters as an earlier version would have named it."""
    async with back_ends.connection.channel() as channel:
        await declare_all(await channel.get_underlay_channel())
        await channel.declare_queue(f"{OLD}.dead", durable=True, arguments=topology.DEAD_ARGUMENTS)
        old = await channel.declare_queue(OLD, durable=True, arguments=NEW.arguments)
        await old.bind(topology.EVENTS_EXCHANGE, NEW.routing_key)


async def _acknowledge(message: AbstractIncomingMessage) -> None:
    await message.ack()


async def take_over(back_ends: BackEnds) -> list[TakenOver]:
    async with rabbitmq.connected(back_ends.rabbitmq_url) as broker:
        return await retired.take_over(broker, {OLD: NEW.name})


async def test_everything_is_declared_where_sori_never_was_and_a_repeat_does_nothing(back_ends: BackEnds) -> None:
    said = await back_ends.sorictl("setup")
    assert (said.status, said.out, said.err) == (0, NOTHING_TO_DO, "")
    names = [name for queue in topology.QUEUES for name in (queue.name, queue.dead_name)]
    names += [delay.name for delay in topology.RETRY_DELAYS]
    assert {name: await back_ends.count(name) for name in names} == dict.fromkeys(names, 0)
    event = Story(str(uuid.uuid4())).upload_received()
    async with back_ends.connection.channel() as channel:
        exchange = await channel.get_exchange(topology.EVENTS_EXCHANGE)
        await exchange.publish(aio_pika.Message(event.encode()), event.type)
    again = await back_ends.sorictl("setup")
    assert (again.status, again.out) == (0, NOTHING_TO_DO)
    assert [len(await back_ends.taken(queue.name)) for queue in topology.queues_for(event.type)] == [1, 1]


async def test_witnesses_of_earlier_versions_are_removed(back_ends: BackEnds) -> None:
    async with back_ends.connection.channel() as channel:
        await declare_all(await channel.get_underlay_channel())
        for queue in topology.QUEUES[:3]:
            kind = aio_pika.ExchangeType.FANOUT
            witness = await channel.declare_exchange(
                f"{queue.former_name}.witness", kind, durable=True, auto_delete=True
            )
            await (await channel.get_queue(queue.name)).bind(witness)
    said = await back_ends.sorictl("setup")
    assert (said.status, said.out.splitlines()[0]) == (
        0,
        "RabbitMQ: exchanges and queues are declared; 3 old exchanges removed.",
    )
    assert (await back_ends.sorictl("setup")).out == NOTHING_TO_DO


async def test_messages_of_a_retired_queue_are_moved_in_order_as_they_were(back_ends: BackEnds) -> None:
    await declare_old(back_ends)
    # More than one channel takes.
    for number in range(70):
        await back_ends.put(OLD, f"{number}".encode(), f"{number:05}", {topology.ATTEMPT_HEADER: 3})
    event = Story(str(uuid.uuid4())).upload_received()
    await back_ends.put(f"{OLD}.dead", event.encode(), event.id, {topology.REASON_HEADER: "a reason"})
    assert await take_over(back_ends) == [
        TakenOver(OLD, NEW.name, 70, None),
        TakenOver(f"{OLD}.dead", NEW.dead_name, 1, None),
    ]
    assert (await back_ends.count(OLD), await back_ends.count(f"{OLD}.dead")) == (None, None)
    moved = await back_ends.taken(NEW.name)
    assert [message.message_id for message in moved] == [f"{number:05}" for number in range(70)]
    assert {tuple(message.headers.items()) for message in moved} == {((topology.ATTEMPT_HEADER, 3),)}
    assert {message.delivery_mode for message in moved} == {aio_pika.DeliveryMode.PERSISTENT}
    [letter] = await back_ends.taken(NEW.dead_name)
    resuming = resumed(NEW, Message(letter.body, letter.message_id, letter.headers))
    assert resuming is not None
    held_step = topology.held_step(OLD, event.id, 0)
    assert resuming.data.held_id == events.event_id(event.subject, JobHeld.TYPE, held_step)
    assert await take_over(back_ends) == []


async def test_every_queue_of_the_version_before_is_moved_by_the_command(back_ends: BackEnds) -> None:
    """Their dead letters had no limit of deliveries; the queues' own arguments name them."""
    story = Story(str(uuid.uuid4()))
    letter = story.upload_received()
    async with back_ends.connection.channel() as channel:
        await declare_all(await channel.get_underlay_channel())
        for queue in topology.QUEUES:
            dead = f"{queue.former_name}.dead"
            await channel.declare_queue(dead, durable=True, arguments={"x-queue-type": "quorum"})
            arguments = {**queue.arguments, "x-dead-letter-routing-key": dead}
            former = await channel.declare_queue(queue.former_name, durable=True, arguments=arguments)
            await former.bind(topology.EVENTS_EXCHANGE, queue.routing_key)
    for queue in topology.QUEUES:
        await back_ends.put(queue.former_name, letter.encode(), queue.name)
        await back_ends.put(f"{queue.former_name}.dead", letter.encode(), letter.id)
    said = await back_ends.sorictl("setup")
    assert said.status == 0, said
    for queue in topology.QUEUES:
        assert await back_ends.count(queue.former_name) is None
        assert await back_ends.count(f"{queue.former_name}.dead") is None
        assert [message.message_id for message in await back_ends.taken(queue.name)] == [queue.name]
        assert [message.message_id for message in await back_ends.taken(queue.dead_name)] == [letter.id]
    assert (await back_ends.sorictl("setup")).out == NOTHING_TO_DO


async def test_a_retired_queue_gets_nothing_more_and_stays_while_it_is_consumed(back_ends: BackEnds) -> None:
    await declare_old(back_ends)
    async with back_ends.connection.channel() as channel:
        queue = await channel.get_queue(OLD)
        tag = await queue.consume(_acknowledge)
        done = await take_over(back_ends)
        assert [one.stays_because for one in done] == [
            "a service of an earlier version consumes it",
            f"{OLD} is still there",
        ]
        await queue.cancel(tag)
    event = Story(str(uuid.uuid4())).upload_received()
    async with back_ends.connection.channel() as channel:
        exchange = await channel.get_exchange(topology.EVENTS_EXCHANGE)
        await exchange.publish(aio_pika.Message(event.encode()), event.type)
    assert (len(await back_ends.taken(NEW.name)), await back_ends.count(OLD)) == (1, 0)
    assert [one.stays_because for one in await take_over(back_ends)] == [None, None]


async def test_a_queue_of_another_form_is_named_and_mongodb_is_set_up_all_the_same(back_ends: BackEnds) -> None:
    async with back_ends.connection.channel() as channel:
        await channel.queue_delete(NEW.name)
        await channel.declare_queue(NEW.name, durable=True)
    await back_ends.jobs.insert_one(document())
    said = await back_ends.sorictl("setup")
    async with back_ends.connection.channel() as channel:
        await channel.queue_delete(NEW.name)
    assert said.status == 1
    assert said.err.startswith("sorictl: RabbitMQ refuses to declare what Sori needs: PRECONDITION_FAILED")
    assert f"'{NEW.name}'" in said.err
    assert said.out.startswith("MongoDB: 1 unfinished jobs will be told again")


async def test_unfinished_jobs_get_their_event_and_all_lose_their_outbox(back_ends: BackEnds) -> None:
    text = Story(str(uuid.uuid4())).upload_received().encode().decode()
    at = datetime.now(UTC).replace(microsecond=0)
    marked, unmarked = document(outbox=text), document()
    new = document(upload_received="its own", publish_at=at, redrives=3, redriven_at=at, outbox=None)
    others = [document(Status.COMPLETED, outbox=text), new, document(cancel_asked_at=at, publish_at=None)]
    await back_ends.jobs.insert_many([marked, unmarked, *others])
    indexed = {"outbox": {"$type": "string"}}
    await back_ends.jobs.create_index([("created_at", 1)], name="outbox", partialFilterExpression=indexed)
    before = datetime.now(UTC) - timedelta(seconds=1)
    said = await back_ends.sorictl("setup")
    assert said.status == 0, said
    assert said.out.splitlines()[1:] == [
        "MongoDB: 2 unfinished jobs will be told again (1 events rebuilt),",
        "         2 other outbox marks removed, the old index removed.",
    ]
    kept = {found["_id"]: found async for found in back_ends.jobs.find()}
    for made, had in ((marked, text), (unmarked, None)):
        found = kept[made["_id"]]
        assert before < found.pop("publish_at") < datetime.now(UTC)
        assert (found.pop("redrives"), found.pop("redriven_at")) == (0, None)
        event = events.decode(found.pop("upload_received").encode())
        assert event == events.decode(had.encode()) if had else event.subject == made["_id"]
        assert found == {name: value for name, value in made.items() if name != "outbox"}
    for made in others:
        assert kept[made["_id"]] == {name: value for name, value in made.items() if name != "outbox"}
    assert "outbox" not in await back_ends.jobs.index_information()
    assert (await back_ends.sorictl("setup")).out == NOTHING_TO_DO
    assert {found["_id"] async for found in back_ends.jobs.find({"publish_at": {"$gt": datetime.now(UTC)}})} == set()


async def test_a_purge_that_an_earlier_version_has_begun_is_told_again(back_ends: BackEnds) -> None:
    made = document(Status.CANCELLED)
    made["history"].append({**made["history"][0], "type": JobPurged.TYPE})
    await back_ends.jobs.insert_many([made, document(Status.CANCELLED)])
    said = await back_ends.sorictl("setup")
    assert said.out.splitlines()[-1] == "MongoDB: 1 purges that are not done will be told again."
    (found,) = [found async for found in back_ends.jobs.find({"purge_asked_at": {"$ne": None}})]
    assert (found["_id"], found["publish_at"]) == (made["_id"], found["purge_asked_at"])
    assert (await back_ends.sorictl("setup")).out == NOTHING_TO_DO


@pytest.mark.parametrize("meanwhile", [{"view.status": "completed"}, {"publish_at": datetime(2026, 1, 1, tzinfo=UTC)}])
async def test_a_job_that_changes_while_its_event_is_made_is_left_as_it_is(
    back_ends: BackEnds, meanwhile: dict[str, Any]
) -> None:
    made = document()
    await back_ends.jobs.insert_one(made)

    def rebuild(job: Job) -> UploadReceived:
        with MongoClient[dict[str, Any]](back_ends.mongodb_url) as other:
            other.get_default_database()["jobs"].update_one({"_id": job.job_id}, {"$set": meanwhile})
        return redriving.rebuilt(job)

    def bring_up() -> BroughtUp:
        with job_store.connected(back_ends.mongodb_url) as store:
            return store.bring_up(rebuild)

    assert (await asyncio.to_thread(bring_up)).told == 0
    found = await back_ends.jobs.find_one({"_id": made["_id"]})
    assert "upload_received" not in found
    assert found.get("publish_at") == meanwhile.get("publish_at")


async def test_more_jobs_than_one_batch_are_all_given_their_event(back_ends: BackEnds) -> None:
    await back_ends.jobs.insert_many([document() for _ in range(2500)])
    said = await back_ends.sorictl("setup")
    assert "MongoDB: 2,500 unfinished jobs will be told again (2,500 events rebuilt)," in said.out
    assert await back_ends.jobs.count_documents({"publish_at": None}) == 0
    texts = [found["upload_received"] async for found in back_ends.jobs.find({}, {"upload_received": 1})]
    assert len({events.decode(text.encode()).subject for text in texts}) == 2500


@pytest.mark.parametrize("away", ["RABBITMQ_URL", "MONGODB_URL"])
async def test_a_back_end_that_is_away_is_named_and_the_other_is_set_up(back_ends: BackEnds, away: str) -> None:
    await back_ends.jobs.insert_one(document())
    nowhere = {"RABBITMQ_URL": "amqp://127.0.0.1:1/", "MONGODB_URL": "mongodb://127.0.0.1:1/sori"}[away]
    said = await back_ends.sorictl("setup", **{away: nowhere})
    name, other = ("RabbitMQ", "MongoDB") if away == "RABBITMQ_URL" else ("MongoDB", "RabbitMQ")
    assert said.status == 1
    assert said.err.startswith(f"sorictl: {name} at 127.0.0.1:1 cannot be reached")
    assert said.out.startswith(f"{other}: ")
    assert (await back_ends.sorictl("setup")).status == 0


@pytest.mark.parametrize("missing", ["RABBITMQ_URL", "MONGODB_URL"])
async def test_both_settings_are_needed_before_anything_is_done(back_ends: BackEnds, missing: str) -> None:
    said = await back_ends.sorictl("setup", without=missing)
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith(f"sorictl: setting {missing}: Field required")


@pytest.mark.parametrize("has_outbox", [True, False], ids=["with its event", "without"])
async def test_beside_running_services_a_job_of_an_earlier_version_is_taken_to_its_end(
    back_ends_of_services: BackEnds, sori: Sori, bucket: Bucket, has_outbox: bool
) -> None:
    event = Story(str(uuid.uuid4()), new_token()).upload_received()
    await bucket.put(event.data.inbox_key, RECORDING)
    outbox = {"outbox": event.encode().decode()} if has_outbox else {}
    newer = {"upload_received", "publish_at", "redrives", "redriven_at", "cancel_asked_at", "purge_asked_at"}
    made = Job.received(event, None).model_dump(by_alias=True, exclude=newer | {"analysis_deadline", "removed"})
    await back_ends_of_services.jobs.insert_one(made | outbox)
    said = await back_ends_of_services.sorictl("setup")
    assert said.status == 0, said
    assert (await sori.ended(event.subject))["status"] == "completed"
    assert "outbox" not in await back_ends_of_services.jobs.find_one({"_id": event.subject})
