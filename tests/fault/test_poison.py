"""Poison in every queue: it is set aside with its reason, a job that it names is held, and the queue goes on."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pymongo import MongoClient

from contracts import events, topology
from contracts.events import Event
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.proxied import Proxied
from tests.support.rounds import Rounds
from tests.support.sori import Sori

ENORMOUS_BYTES = 4 * 1024 * 1024
MOST_BYTES = 64 * 1024 * 1024
"""Half of what this version of RabbitMQ takes at most."""
DEEP = 100_000
BSON_BYTES = 17 * 1024 * 1024
"""More than MongoDB keeps in a document."""
LAST_TRY = {topology.ATTEMPT_HEADER: topology.MAX_ATTEMPTS}
"""The header of a message that is on its last try, so that the test need not wait eight minutes for all tries."""

HOLDING_NOTHING = (events.JobHeld, events.JobResumed)
"""A `job.held` or `job.resumed` message that is set aside holds no job itself."""
SAMPLE = (topology.UPLOADER_UPLOAD_RECEIVED, topology.BRIDGE_JOB_CANCELLED, topology.NOTIFIER_QUEUES[0])
"""The queues of the short form."""


def _each(queues: Iterable[topology.Queue]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "queue",
        [pytest.param(queue, id=queue.name, marks=[] if queue in SAMPLE else pytest.mark.full) for queue in queues],
    )


QUEUES = _each(topology.QUEUES)
# Of analysis.progressed the handler keeps its own time, and there is nothing else in it to fail at.
WITH_WHAT_FAILS = _each(queue for queue in topology.QUEUES if queue.event is not events.AnalysisProgressed)


@pytest.fixture
async def job_id(rounds: Rounds, proxied_sori: Sori) -> str:
    """A job that waits for its webhook; only the test ends it."""
    job = await rounds.accepted("never-calls-back")
    await proxied_sori.reached(job.job_id, 90)
    return job.job_id


def wrong_shapes(queue: topology.Queue, job_id: str) -> Iterator[tuple[str, bytes, bool]]:
    """Messages that are not events of this queue: what is wrong, the body, whether it holds the job that it names."""
    story = Story(job_id)
    envelope = json.loads(story.audio_stored().encode())
    # Each has an id of its own, because two dead letters about one event would count as one hold.
    good = {**envelope, "type": queue.event.TYPE, "data": {}}
    another: Event = story.audio_stored() if queue.event is not events.AudioStored else story.analysis_completed()
    yield "no JSON", b'{"specversion": "1.0", ', False
    yield "no text", bytes(range(128, 256)), False
    yield "nothing at all", b"", False
    yield "no data", _with_id(good), queue.event not in HOLDING_NOTHING
    yield "a version of the future", _with_id({**good, "type": queue.event.TYPE[:-1] + "9"}), True
    yield "an event of another queue", _with_id(json.loads(another.encode())), True
    yield "enormous", _with_id({**good, "data": "x" * ENORMOUS_BYTES}), queue.event not in HOLDING_NOTHING
    yield "nested deeply", b'{"data": ' + b"[" * DEEP + b"]" * DEEP + b"}", False


def _with_id(event: dict[str, object]) -> bytes:
    return json.dumps({**event, "id": str(uuid.uuid4())}).encode()


@QUEUES
async def test_what_is_no_event_of_its_queue_is_set_aside_and_the_queue_goes_on(
    proxied_broker: Broker, proxied_sori: Sori, rounds: Rounds, queue: topology.Queue, job_id: str
) -> None:
    holds = 0
    async with proxied_broker.overhearing() as overheard:
        for wrong, body, tells_its_job in wrong_shapes(queue, job_id):
            rounds.say(f"{queue.name}: {wrong}, {len(body)} bytes")
            await set_aside(proxied_broker, queue, body)
            holds += tells_its_job
        held = await overheard.until(job_id, events.JobHeld, holds)
    assert len({event.id for event in held}) == holds
    for event in held:
        assert isinstance(event, events.JobHeld)
        assert event.data.queue == queue.name
        assert event.data.reason
    await goes_on(proxied_broker, proxied_sori, queue, job_id)


async def set_aside(broker: Broker, queue: topology.Queue, body: bytes, **headers: int) -> None:
    """Put a message into a queue and take it from the dead letters: it must be unchanged and carry its reason."""
    message_id = str(uuid.uuid4())
    await broker.put(queue.name, body, message_id, dict(headers) or None)
    dead = await broker.dead_letter(queue, message_id)
    assert dead.body == body
    assert dead.headers[topology.REASON_HEADER]
    assert {topology.FIRST_FAILURE_HEADER, topology.LAST_FAILURE_HEADER, topology.ATTEMPT_HEADER} <= dead.headers.keys()
    assert str(dead.headers[topology.SERVICE_VERSION_HEADER]).split()[0] == queue.service


async def goes_on(broker: Broker, sori: Sori, queue: topology.Queue, job_id: str) -> None:
    """The job that was held ends as it should, and nothing is left in the queue."""
    answer = await sori.webhook(job_id, {"status": "success", "result": {"score": 1}})
    assert answer.status_code == 200
    assert (await sori.ended(job_id))["result"] == {"score": 1}
    await broker.until_empty(queue.name)
    await broker.until_empty(queue.dead_name)


def _at_the_end_of_time(event: Event) -> bytes:
    """An event whose time is valid, but cannot be converted to UTC; its id is new to the job."""
    return _with_id({**json.loads(event.encode()), "time": "9999-12-31T23:59:59-14:00"})


def _huge_address(event: events.AudioStored) -> bytes:
    document = json.loads(event.encode())
    document["data"]["s3_url"] += "x" * BSON_BYTES
    return json.dumps(document).encode()


def _webhook(job_id: str) -> events.AnalysisWebhookReceived:
    data = events.AnalysisWebhookReceivedData(attempt=1, body={"status": "success", "result": {"x": "x" * BSON_BYTES}})
    trace = events.continued_trace(None)
    return events.AnalysisWebhookReceived.new(job_id, data, source="gateway", traceparent=trace, step="poison")


def _no_key(story: Story) -> bytes:
    document = json.loads(story.upload_received().encode())
    document["data"]["inbox_key"] = ""
    return json.dumps(document).encode()


def _held(story: Story) -> events.JobHeld:
    return story.job_held(topology.BRIDGE_AUDIO_STORED.name, story.audio_stored())


_EVENTS: dict[type[Event], Callable[[Story], Event]] = {
    events.UploadReceived: Story.upload_received,
    events.AudioStored: Story.audio_stored,
    events.UploadRejected: Story.upload_rejected,
    events.AnalysisDelayed: Story.analysis_delayed,
    events.AnalysisRequested: Story.analysis_requested,
    events.AnalysisWebhookIgnored: Story.analysis_webhook_ignored,
    events.AnalysisProgressed: Story.analysis_progressed,
    events.AnalysisCompleted: Story.analysis_completed,
    events.AnalysisFailed: Story.analysis_failed,
    events.JobHeld: _held,
    events.JobResumed: lambda story: story.job_resumed(_held(story)),
    events.JobCancelled: Story.job_cancelled,
    events.JobPurged: Story.job_purged,
    events.AudioRemoved: Story.audio_removed,
    events.AnalysisRemoved: Story.analysis_removed,
    events.JobExpired: Story.job_expired,
}
_CRASHING: dict[topology.Queue, Callable[[Story], bytes]] = {
    topology.UPLOADER_UPLOAD_RECEIVED: _no_key,
    topology.BRIDGE_AUDIO_STORED: lambda story: _huge_address(story.audio_stored()),
    topology.BRIDGE_WEBHOOK_RECEIVED: lambda story: _webhook(story.job_id).encode(),
    **{
        queue: lambda story, make=_EVENTS[queue.event]: _at_the_end_of_time(make(story))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        for queue in topology.NOTIFIER_QUEUES
    },
}
"""Valid events at which the handlers of these queues fail on every try."""


@asynccontextmanager
async def _failing(queue: topology.Queue, story: Story, proxied: Proxied, bucket: Bucket) -> AsyncIterator[bytes]:
    """Yield an event at which the handler of this queue fails until the block ends.

    Where no content of an event makes the handler fail, its surroundings do: a record that cannot be read, a recording
    that cannot be deleted.
    """
    if queue in _CRASHING:
        yield _CRASHING[queue](story)
    elif queue.service == "analyzer-bridge":
        with MongoClient[dict[str, Any]](proxied.stack.settings["MONGODB_URL"]) as mongodb:
            mongodb.get_default_database()["analyses"].insert_one({"_id": story.job_id, "status": "not one of ours"})
            yield _EVENTS[queue.event](story).encode()
    else:
        if proxied.disk is None:
            pytest.skip("mounting is not allowed here")  # the S3 server would delete whatever it is asked to
        await bucket.put(f"audio/{story.job_id}.wav", b"a recording")
        with proxied.undeletable(f"audio/{story.job_id}.wav"):
            # Of the bridge's: what the gateway asks for is told again by it, and is never set aside.
            purged = story.job_purged().model_copy(update={"source": "/sori/analyzer-bridge"})
            yield purged.encode()


@WITH_WHAT_FAILS
async def test_an_event_that_its_handler_always_fails_at_is_set_aside_after_its_last_try(
    proxied: Proxied,
    proxied_broker: Broker,
    proxied_sori: Sori,
    proxied_bucket: Bucket,
    *,
    rounds: Rounds,
    queue: topology.Queue,
) -> None:
    """Others that are in hand at the same time, and in the same batch, complete."""
    # Services other than the notifier must not know the job yet: for a known job they keep what they had.
    known = queue.service == "notifier"
    job = await rounds.accepted("never-calls-back")
    if known:
        await proxied_sori.reached(job.job_id, 90)
    story = Story(job.job_id if known else str(uuid.uuid4()), job.token_id)
    async with _failing(queue, story, proxied, proxied_bucket) as body:
        rounds.say(f"{queue.name}: {len(body)} bytes that pass the schema, among 5 jobs")
        async with proxied_broker.overhearing() as overheard:
            others = asyncio.create_task(rounds.run(5))
            await set_aside(proxied_broker, queue, body, **LAST_TRY)
            held = [] if queue.event in HOLDING_NOTHING else await overheard.until(story.job_id, events.JobHeld)
            await others
    assert {(event.data.event_type, event.data.queue) for event in held if isinstance(event, events.JobHeld)} == (
        set() if queue.event in HOLDING_NOTHING else {(queue.event.TYPE, queue.name)}
    )
    await proxied_sori.reached(job.job_id, 90)
    await goes_on(proxied_broker, proxied_sori, queue, job.job_id)


@pytest.mark.full
async def test_a_message_as_large_as_the_broker_takes_is_set_aside_whole(
    proxied_broker: Broker, rounds: Rounds
) -> None:
    for queue in (topology.UPLOADER_UPLOAD_RECEIVED, topology.BRIDGE_AUDIO_STORED, topology.NOTIFIER_QUEUES[0]):
        rounds.say(f"{queue.name}: {MOST_BYTES} bytes")
        await set_aside(proxied_broker, queue, b" " * MOST_BYTES)
    await rounds.run(3)
