"""Events twice, in any order, and too early: the end is the same, and every listener sees it exactly once."""

import asyncio
import json
import random
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from contracts import events, topology
from contracts.events import Event, JobProgressed, UploadReceived
from contracts.job import Job
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.front_end import FrontEnd
from tests.support.proxied import REPLICAS, Proxied
from tests.support.recordings import wav
from tests.support.rounds import Rounds, Sent
from tests.support.sori import Sori, State, new_token
from tests.support.waiting import until

NOTIFIER_QUEUES = {queue.event.TYPE: queue for queue in topology.NOTIFIER_QUEUES}
ENDINGS = ("normal", "slow", "fail", "http-400", "webhook-before-answer", "calls-twice", "http-503-retry-after")
"""How the analysis server behaves, one job for each. `lived` adds one more job, whose recording is not audio."""
COPIED = 60
CLONES = 4
"""For each job; each clone gets the events in an order of its own."""


@pytest.mark.parametrize("behaviour", ["normal", "slow", "webhook-before-answer", "calls-twice"])
async def test_every_event_delivered_twice_changes_nothing(
    proxied: Proxied,
    proxied_broker: Broker,
    proxied_bucket: Bucket,
    *,
    proxied_jobs: Any,
    rounds: Rounds,
    behaviour: str,
) -> None:
    before = handled_by_replica(proxied)
    # Bad networks before this have left what only the sweeper takes, after hours: it is not what is asked about here.
    left_before = await proxied_bucket.unfinished()
    async with proxied_broker.doubling() as doubled:
        jobs = await rounds.run(8, behaviours=[behaviour])
        for queue in topology.QUEUES:
            await proxied_broker.until_empty(queue.name)
    rounds.say(f"{len(doubled)} events were delivered twice")
    assert len(doubled) >= 4 * len(jobs)
    for job in jobs:
        document = await proxied_jobs.find_one({"_id": job.job_id})
        had = [entry["event_id"] for entry in document["history"]]
        assert len(had) == len(set(had)), f"applied twice: {had}"
        assert await proxied_bucket.keys(f"audio/{job.job_id}") == {f"audio/{job.job_id}.wav"}
        await rounds.check(job)
    await proxied_bucket.until_inbox_is_empty(besides=left_before)
    each_replica_worked(rounds, proxied, before, "notifier", "analyzer-bridge")


async def test_a_listener_hears_the_copy_of_an_event_that_is_kept(
    proxied_broker: Broker, proxied_sori: Sori, proxied_jobs: Any, rounds: Rounds
) -> None:
    """An event that is published again has another time: of two copies that two replicas handle, one is kept."""
    listener = FrontEnd(proxied_sori.client, proxied_sori.url)
    stories = [Story(str(uuid.uuid4())) for _ in range(COPIED)]
    received = [Job.received(story.upload_received(), None) for story in stories]
    await proxied_jobs.insert_many([job.model_dump(by_alias=True, exclude={"upload_received"}) for job in received])
    listening = [asyncio.create_task(listener.follow(story.job_id)) for story in stories]
    for story in stories:
        completed = story.analysis_completed()
        later = completed.model_copy(update={"time": completed.time + timedelta(seconds=1)})
        for copy in rounds.random.sample([completed, later], 2):
            await proxied_broker.put("notifier.analysis.completed.v1", copy.encode())
    for story, heard in zip(stories, await asyncio.gather(*listening), strict=True):
        assert [int(block.id or 0) for block in heard] == [1, 2]
        assert heard[-1].state == await proxied_sori.state(story.job_id)
    rounds.say(f"{COPIED} jobs were told of their end twice, at two times")


async def test_a_webhook_before_the_requests_own_answer_never_makes_progress_fall(
    proxied: Proxied, rounds: Rounds
) -> None:
    before = handled_by_replica(proxied)
    await rounds.run(12, behaviours=["webhook-before-answer"])
    each_replica_worked(rounds, proxied, before, "notifier", "analyzer-bridge")


async def test_the_events_of_real_jobs_shuffled_and_doubled_lead_to_the_same_end(
    proxied: Proxied, proxied_broker: Broker, proxied_sori: Sori, proxied_jobs: Any, rounds: Rounds
) -> None:
    before = handled_by_replica(proxied)
    async with proxied_broker.overhearing() as overheard:
        originals = await lived(rounds, proxied_sori)
        for queue in topology.QUEUES:
            await proxied_broker.until_empty(queue.name)
        stories = {state["job_id"]: told(overheard.of(state["job_id"])) for state in originals}
    for state in originals:
        kinds = [event.type.removesuffix(".v1") for event in stories[state["job_id"]]]
        rounds.say(f"{state['token_id'].split('--')[0]} ended {state['status']} by {', '.join(kinds)}")
    listener = FrontEnd(proxied_sori.client, proxied_sori.url)
    clones = [
        relive(
            proxied_broker,
            proxied_jobs,
            listener,
            original=state,
            story=stories[state["job_id"]],
            seed=rounds.random.randrange(2**32),
        )
        for state in originals
        for _ in range(CLONES)
    ]
    for original, clone, story in await asyncio.gather(*clones):
        document = await has_had(proxied_jobs, clone.job_id, story)
        assert len(document["history"]) == 1 + len({event.id for event in story}), "an event was applied twice"
        assert document["revision"] == len(clone.heard)
        ids = [int(block.id or 0) for block in clone.heard]
        assert ids == list(range(1, len(ids) + 1)), f"not each state exactly once: {ids}"
        progress = [block.state["progress"] for block in clone.heard]
        assert progress == sorted(progress), f"progress fell: {progress}"
        assert clone.heard[-1].state == await proxied_sori.state(clone.job_id)
        assert lasting(clone.heard[-1].state, clone.job_id) == lasting(original, original["job_id"])
    rounds.say(f"{len(clones)} clones ended like the jobs that they are of")
    each_replica_worked(rounds, proxied, before, "notifier")


async def lived(rounds: Rounds, sori: Sori) -> list[State]:
    """Run one job for each of ENDINGS and one that is rejected; return how each ended."""
    tokens = [new_token(behaviour) for behaviour in ENDINGS]
    jobs = [await sori.job(wav(0.3, seed=rounds.random.randrange(2**32)), token) for token in tokens]
    jobs.append(await sori.job(b"this is no audio", new_token("rejected")))
    return list(await asyncio.gather(*(sori.ended(job_id, limit_seconds=60) for job_id in jobs)))


def told(heard: Sequence[Event]) -> list[Event]:
    """The events that the notifier consumes, each once."""
    once = {event.id: event for event in heard if not isinstance(event, JobProgressed)}
    return [event for event in once.values() if event.type in NOTIFIER_QUEUES]


async def relive(
    broker: Broker, jobs: Any, listener: FrontEnd, *, original: State, story: Sequence[Event], seed: int
) -> tuple[State, Sent, list[Event]]:
    """Make another job that gets the same events, each twice and in the seed's order, while somebody listens."""
    new = str(uuid.uuid4())
    cloned = [clone_of(event, new) for event in story]
    received = next(event for event in cloned if isinstance(event, UploadReceived))
    # Without its event: only this test publishes its events.
    await jobs.insert_one(Job.received(received, None).model_dump(by_alias=True, exclude={"upload_received"}))
    job = Sent(original["token_id"], new)
    listening = asyncio.create_task(listener.follow(new))
    shuffled = cloned * 2
    random.Random(seed).shuffle(shuffled)
    for event in shuffled:
        await broker.put(NOTIFIER_QUEUES[event.type].name, event.encode())
    async with asyncio.timeout(60):
        job.heard = await listening
    return original, job, cloned


def clone_of(event: Event, job_id: str) -> Event:
    """The same event of another job."""
    text = event.encode().decode().replace(event.subject, job_id)
    return events.decode(text.replace(event.id, str(uuid.uuid5(uuid.UUID(job_id), event.id))).encode())


def lasting(state: State, job_id: str) -> Any:
    """The part of a job's end that does not depend on which job it is, or on the time."""
    kept = {name: value for name, value in state.items() if name not in {"updated_at", "created_at"}}
    return json.loads(json.dumps(kept).replace(job_id, "the job"))


async def has_had(jobs: Any, job_id: str, story: Sequence[Event]) -> dict[str, Any]:
    """Wait until each of these events is in the job's history; return its document."""

    async def look() -> dict[str, Any] | None:
        document: dict[str, Any] = await jobs.find_one({"_id": job_id})
        had = {entry["event_id"] for entry in document["history"]}
        return document if had >= {event.id for event in story} else None

    return await until(look, f"all events of job {job_id}")


def handled_by_replica(proxied: Proxied) -> dict[str, int]:
    """How many events each replica has said that it handled."""
    logs = {name: proxied.stack.log(name).read_text(encoding="utf-8") for name in proxied.service_pids()}
    return {name: text.count('"event handled"') for name, text in logs.items()}


def each_replica_worked(rounds: Rounds, proxied: Proxied, before: dict[str, int], *services: str) -> None:
    """Every replica must have handled events: idle replicas would prove nothing."""
    now = handled_by_replica(proxied)
    names = [f"{service}-{replica}" for service in services for replica in range(1, REPLICAS + 1)]
    worked = {name: now[name] - before[name] for name in names}
    rounds.say(f"events handled: {worked}")
    assert all(worked.values())
