"""Events on the real queues: malformed, of another version, repeated, out of order. The queues always go on."""

import asyncio
import json
import random
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from contracts import topology
from contracts.events import AnalysisCompleted, AudioStored, Event, JobProgressed, UploadRejected
from contracts.job import Job
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import RESULT, Story
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.sse import heard
from tests.support.waiting import until

QUEUES = {queue.name: queue for queue in topology.QUEUES}
NOTIFIER_QUEUES = {queue.event.TYPE: queue for queue in topology.NOTIFIER_QUEUES}


def broken(queue: topology.Queue) -> dict[str, tuple[bytes, str]]:
    """Messages that this queue can do nothing with, and a word of the reason that each is given."""
    story = Story(str(uuid.uuid4()))
    good = json.loads(story.audio_stored().encode()) | {"type": queue.event.TYPE}
    other = story.analysis_requested() if queue.event.TYPE != "analysis.requested.v1" else story.audio_stored()
    return {
        "no JSON": (b"{this is no event", "body"),
        "no text": (b"\xff\xfe", "body"),
        "nothing": (b"", "body"),
        "no data": (json.dumps(good | {"data": {}}).encode(), "data"),
        "no job": (json.dumps(good | {"subject": "../../etc"}).encode(), "subject"),
        "an unknown version": (json.dumps(good | {"type": queue.event.TYPE[:-1] + "2"}).encode(), "type"),
        "an event of another queue": (other.encode(), other.type),
    }


@pytest.mark.parametrize("name", QUEUES)
async def test_an_event_that_cannot_be_read_becomes_a_dead_letter_with_its_reason(broker: Broker, name: str) -> None:
    queue = QUEUES[name]
    for body, word in broken(queue).values():
        message_id = str(uuid.uuid4())
        await broker.put(queue.name, body, message_id)
        dead = await broker.dead_letter(queue, message_id)
        assert dead.body == body
        assert word in str(dead.headers[topology.REASON_HEADER])
        assert str(dead.headers[topology.SERVICE_VERSION_HEADER]).split()[0] == queue.service
        assert {topology.FIRST_FAILURE_HEADER, topology.LAST_FAILURE_HEADER} <= dead.headers.keys()


async def test_an_unknown_version_on_the_exchange_harms_nobody(broker: Broker, sori: Sori) -> None:
    event = json.loads(Story(str(uuid.uuid4())).upload_received().encode())
    await broker.put("uploader.upload.received.v1", json.dumps(event | {"type": "upload.received.v2"}).encode(), "v2")
    await broker.dead_letter(topology.UPLOADER_UPLOAD_RECEIVED, "v2")
    assert (await sori.completed())["status"] == "completed"


async def test_every_queue_goes_on_after_what_it_could_not_read(broker: Broker, sori: Sori) -> None:
    for queue in topology.QUEUES:
        await broker.put(queue.name, b"nonsense", f"nonsense in {queue.name}")
    states = await asyncio.gather(
        sori.completed(),
        sori.ended(await sori.job(b"this is no audio")),
        sori.ended(await sori.job(token_id=new_token("fail"))),
    )
    assert [state["status"] for state in states] == ["completed", "failed", "failed"]
    for queue in topology.QUEUES:
        await broker.dead_letter(queue, f"nonsense in {queue.name}")
        await broker.until_empty(queue.name)


async def test_an_event_of_an_unknown_job_is_passed_over(broker: Broker, sori: Sori, jobs: Any) -> None:
    story = Story(str(uuid.uuid4()))
    before = await jobs.count_documents({})
    await broker.put("notifier.analysis.completed.v1", story.analysis_completed().encode())
    # Nothing else waits in this queue: when it is empty, the event has been taken.
    await broker.until_empty("notifier.analysis.completed.v1")
    assert (await sori.completed())["status"] == "completed"
    assert await jobs.count_documents({}) == before + 1


async def test_a_redelivered_upload_changes_nothing_and_is_answered_from_what_is_kept(
    broker: Broker, sori: Sori, bucket: Bucket, jobs: Any, analysis_server: AnalysisServer
) -> None:
    token_id = new_token()
    async with broker.overhearing() as overheard:
        state = await sori.completed(token_id=token_id)
        job_id = state["job_id"]
        await bucket.until_inbox_is_empty()
        first = await overheard.until(job_id, AudioStored)
        document = await jobs.find_one({"_id": job_id})
        kept = await bucket.head(f"audio/{job_id}.wav")
        await broker.publish(Story(job_id, token_id, RECORDING).upload_received())
        stored = await overheard.until(job_id, AudioStored, 2)
        await overheard.until(job_id, AnalysisCompleted, 2)
        # What changes nothing is told again, in case a crash had kept it from being told.
        last = await told_again(broker, overheard.events, job_id, document["revision"])
        assert not overheard.of(job_id, UploadRejected)
    assert (stored[1].id, stored[1].data) == (first[0].id, first[0].data)
    assert last.data.model_dump()["status"] == "completed"
    assert await jobs.find_one({"_id": job_id}) == document
    assert await bucket.head(f"audio/{job_id}.wav") == kept
    assert await sori.state(job_id) == state
    assert len(await analysis_server.requests_for(token_id)) == 1


async def test_an_upload_whose_bytes_are_nowhere_fails_the_job(broker: Broker, sori: Sori, jobs: Any) -> None:
    event = Story(str(uuid.uuid4())).upload_received()
    await jobs.insert_one(Job.received(event, None).model_dump(by_alias=True))
    await broker.publish(event)
    state = await sori.ended(event.subject)
    assert (state["status"], state["error"]["code"]) == ("failed", "audio_missing")


async def test_bytes_that_are_not_those_that_were_sent_fail_the_job(
    broker: Broker, sori: Sori, bucket: Bucket, jobs: Any
) -> None:
    event = Story(str(uuid.uuid4()), recording=RECORDING).upload_received()
    await bucket.put(event.data.inbox_key, RECORDING[:-2] + b"\x00\x01")
    await jobs.insert_one(Job.received(event, None).model_dump(by_alias=True))
    await broker.publish(event)
    state = await sori.ended(event.subject)
    assert (state["status"], state["error"]["code"]) == ("failed", "checksum_mismatch")
    await bucket.until_inbox_is_empty()
    assert not await bucket.keys(f"audio/{event.subject}")


@pytest.mark.parametrize("ending", ["completed", "failed"])
async def test_doubled_and_shuffled_events_end_in_the_right_state(
    broker: Broker, sori: Sori, jobs: Any, ending: str
) -> None:
    async with broker.overhearing() as overheard:
        tellings = await asyncio.gather(*(tell_shuffled(broker, jobs, ending, seed) for seed in range(12)))
        documents = [await has_had(jobs, job_id, told) for job_id, told in tellings]
        # A repeat changes nothing and is told again: each change is told twice when every message has been handled.
        for document in documents:
            await overheard.until(document["_id"], JobProgressed, 2 * (document["revision"] - 1))
    for document, (job_id, told) in zip(documents, tellings, strict=True):
        assert await jobs.find_one({"_id": job_id}) == document
        assert len(document["history"]) == 1 + len({event.id for event in told}), "an event was applied twice"
        state = await sori.state(job_id)
        assert (state["status"], state["stage"]) == (ending, "done")
        assert state["s3_url"] == f"s3://sori/audio/{job_id}.wav"
        if ending == "completed":
            assert (state["progress"], state["result"]) == (100, RESULT)
        else:
            assert state["error"]["code"] == "analysis_timed_out"
        assert document["audio"]["waveform"] == [9, 99]
        assert "upload_received" not in document
        messages = await heard(sori.client, sori.progress_url(job_id), last_event_id="0")
        assert [int(message.id or 0) for message in messages] == list(range(1, document["revision"] + 1))
        values = [message.state["progress"] for message in messages]
        assert values == sorted(values), "progress falls"
        assert messages[-1].state == state
    for queue in topology.NOTIFIER_QUEUES:
        await broker.until_empty(queue.name)
        await broker.until_empty(queue.dead_name)


async def test_a_held_job_says_so_and_moves_on(broker: Broker, sori: Sori, analysis_server: AnalysisServer) -> None:
    token_id = new_token("never-calls-back")
    job_id = await sori.job(token_id=token_id)
    await analysis_server.request_for(token_id)
    await sori.reached(job_id, 90)
    story = Story(job_id, token_id)
    await broker.publish(story.job_held("analyzer-bridge.analysis.webhook-received.v1", story.analysis_completed()))

    async def held() -> dict[str, Any] | None:
        state = await sori.state(job_id)
        return state if state["stage"] == "held" else None

    state = await until(held, "the job held")
    assert (state["status"], state["progress"]) == ("processing", 90)
    await sori.webhook(job_id, {"status": "success", "result": {}})
    assert (await sori.ended(job_id))["status"] == "completed"


async def told_again(broker: Broker, overheard: Sequence[Event], job_id: str, revision: int) -> JobProgressed:
    """Wait until listeners have been told of this revision at least twice."""

    async def look() -> JobProgressed | None:
        told = [e for e in overheard if isinstance(e, JobProgressed) and e.subject == job_id]
        of_it = [event for event in told if event.data.revision == revision]
        return of_it[1] if len(of_it) > 1 else None

    return await until(look, f"revision {revision} of job {job_id} told twice")


async def tell_shuffled(broker: Broker, jobs: Any, ending: str, seed: int) -> tuple[str, list[Event]]:
    """Make a job and put every event of its life into the notifier's queues twice, in an order of the seed's own."""
    story = Story(str(uuid.uuid4()))
    received = story.upload_received()
    await jobs.insert_one(Job.received(received, None).model_dump(by_alias=True, exclude={"upload_received"}))
    last: Event = story.analysis_completed() if ending == "completed" else story.analysis_failed()
    requested = [story.analysis_requested(attempt) for attempt in (1, 2)]
    told: list[Event] = [received, story.audio_stored(), *requested, last] * 2
    random.Random(seed).shuffle(told)
    for event in told:
        await broker.put(NOTIFIER_QUEUES[event.type].name, event.encode())
    return story.job_id, told


async def has_had(jobs: Any, job_id: str, told: Sequence[Event]) -> dict[str, Any]:
    """Wait until each of these events is in the job's history; gives its document."""

    async def look() -> dict[str, Any] | None:
        document: dict[str, Any] = await jobs.find_one({"_id": job_id})
        known = {entry["event_id"] for entry in document["history"]}
        return document if known >= {event.id for event in told} else None

    return await until(look, f"all events of job {job_id}")
