"""Holds, and ends from outside, twice and shuffled through the real queues: each job ends once, as the rule says."""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from contracts import events, topology
from contracts.events import Event
from contracts.job import Job, apply, changed
from tests.support.broker import Broker, Overheard
from tests.support.events import Story
from tests.support.front_end import FrontEnd
from tests.support.log_lines import LogLines
from tests.support.proxied import REPLICAS, Proxied
from tests.support.rounds import Rounds
from tests.support.sori import Sori, new_token
from tests.support.sse import Block
from tests.support.waiting import until

JOBS = 12
"""For each tale; each job is told it in an order of its own."""
NOTIFIER_QUEUES = {queue.event: queue for queue in topology.NOTIFIER_QUEUES}
STATUS_AFTER: dict[type[Event], str] = {
    events.AnalysisCompleted: "completed",
    events.AnalysisFailed: "failed",
    events.UploadRejected: "failed",
    events.JobExpired: "failed",
    events.JobCancelled: "cancelled",
    events.JobPurged: "cancelled",
}
BRIDGE_QUEUES = {queue.event: queue for queue in topology.QUEUES if queue.service == "analyzer-bridge"}
FROM_OUTSIDE: dict[type[Event], Callable[[Story], Event]] = {
    events.JobCancelled: Story.job_cancelled,
    events.JobExpired: Story.job_expired,
    events.JobPurged: Story.job_purged,
}


def _begun(story: Story) -> list[Event]:
    return [story.upload_received(), story.audio_stored(), story.analysis_delayed()]


def _held(story: Story) -> events.JobHeld:
    return story.job_held(topology.BRIDGE_AUDIO_STORED.name, story.audio_stored())


def _resumed(story: Story) -> list[Event]:
    held = _held(story)
    return [held, story.job_resumed(held)]


ORDERLY: dict[str, Callable[[Story], list[Event]]] = {
    "held for good": lambda story: [*_begun(story), _held(story)],
    "held and resumed": lambda story: [*_begun(story), *_resumed(story)],
    "resumed and completed": lambda story: [
        *_begun(story),
        *_resumed(story),
        story.analysis_requested(),
        story.analysis_completed(),
        story.analysis_webhook_ignored(),
    ],
    "given up, and a webhook after it": lambda story: [
        *_begun(story),
        story.analysis_requested(),
        story.analysis_failed(),
        story.analysis_webhook_ignored(),
    ],
}
"""Tales that end the same in whatever order they are told."""
STOPPED: dict[str, Callable[[Story], list[Event]]] = {
    "cancelled": lambda story: [*_begun(story), story.analysis_requested(), story.job_cancelled()],
    "cancelled and completed": lambda story: [*_begun(story), story.job_cancelled(), story.analysis_completed()],
    "cancelled and failed": lambda story: [*_begun(story), story.job_cancelled(), story.analysis_failed()],
    "cancelled and rejected": lambda story: [
        story.upload_received(),
        story.job_cancelled(),
        story.upload_rejected(),
    ],
    "expired and completed": lambda story: [
        *_begun(story),
        _held(story),
        story.job_expired(),
        story.analysis_completed(),
        story.analysis_webhook_ignored(),
    ],
    "cancelled and expired": lambda story: [
        *_begun(story),
        *_resumed(story),
        story.job_cancelled(),
        story.job_expired(),
    ],
}
"""Tales with an end from outside: when there are several ends, the first to come stands."""


@pytest.mark.parametrize("tale", [*ORDERLY, *STOPPED])
async def test_a_job_ends_by_the_rule_in_whatever_order_its_events_come(
    proxied_broker: Broker, proxied_sori: Sori, *, proxied_jobs: Any, rounds: Rounds, tale: str
) -> None:
    tell = {**ORDERLY, **STOPPED}[tale]
    stories = [tell(Story(str(uuid.uuid4()))) for _ in range(JOBS)]
    await insert(proxied_jobs, stories)
    has_end = any(type(event) in STATUS_AFTER for event in stories[0])
    listener = FrontEnd(proxied_sori.client, proxied_sori.url)
    listening = [asyncio.create_task(listener.follow(story[0].subject)) for story in stories if has_end]
    await asyncio.gather(*(put_twice(proxied_broker, story, NOTIFIER_QUEUES, rounds.random) for story in stories))
    documents = [await has_had(proxied_jobs, story) for story in stories]
    for document, story in zip(documents, stories, strict=True):
        assert_is_by_the_rule(document, story)
    async with asyncio.timeout(60):
        for heard in await asyncio.gather(*listening):
            assert_heard_once(heard)
    rounds.say(f"{tale}: {dict(Counter(how(document) for document in documents))}")
    if tale in ORDERLY:
        assert len({how(document) for document in documents}) == 1


async def test_a_purged_job_is_gone_in_whatever_order_its_events_come(
    proxied: Proxied, proxied_broker: Broker, proxied_sori: Sori, *, proxied_jobs: Any, rounds: Rounds
) -> None:
    stories = [
        [
            *_begun(story),
            *_resumed(story),
            story.job_purged(),
            story.audio_removed(),
            story.analysis_removed(),
            story.analysis_completed(),
            story.job_cancelled(),
        ]
        for story in (Story(str(uuid.uuid4())) for _ in range(JOBS))
    ]
    await insert(proxied_jobs, stories)
    handled = Handled(proxied, "notifier")
    await asyncio.gather(*(put_twice(proxied_broker, story, NOTIFIER_QUEUES, rounds.random) for story in stories))
    await handled.until({story[0].subject: 2 * len(story) for story in stories})
    for story in stories:
        assert await proxied_jobs.find_one({"_id": story[0].subject}) is None
        assert (await proxied_sori.result(story[0].subject)).status_code == 404
    rounds.say(f"{JOBS} jobs are gone, and none came back")


@pytest.mark.parametrize("end", FROM_OUTSIDE, ids=lambda end: end.TYPE)
async def test_an_analysis_ends_once_in_whatever_order_the_bridge_hears_of_it(
    proxied: Proxied, proxied_broker: Broker, *, proxied_jobs: Any, rounds: Rounds, end: type[Event]
) -> None:
    """What is published agrees with what is recorded: either a result, or an ignored webhook."""
    told = [Story(str(uuid.uuid4()), new_token("never-calls-back")) for _ in range(JOBS)]
    stories = [[story.audio_stored(), story.analysis_webhook_received(), FROM_OUTSIDE[end](story)] for story in told]
    handled = Handled(proxied, "analyzer-bridge")
    async with proxied_broker.overhearing() as overheard:
        await asyncio.gather(*(put_twice(proxied_broker, story, BRIDGE_QUEUES, rounds.random) for story in stories))
        await handled.until({story.job_id: 6 for story in told})
        recorded = [await proxied_jobs.database["analyses"].find_one({"_id": story.job_id}) for story in told]
        for document in recorded:
            await says_what_is_recorded(overheard, document)
    rounds.say(f"{end.TYPE}: {dict(Counter(document['status'] for document in recorded))}")
    if end is events.JobPurged:
        assert all(document.keys() == {"_id", "status", "purged_at"} for document in recorded)
        assert {document["status"] for document in recorded} == {"purged"}


async def says_what_is_recorded(overheard: Overheard, document: dict[str, Any]) -> None:
    """What was published about an analysis agrees with its record, and each kind of event has a single id."""
    job_id, status = document["_id"], document["status"]
    if status == "completed":
        await overheard.until(job_id, events.AnalysisCompleted)
    elif status == "cancelled":
        await overheard.until(job_id, events.AnalysisWebhookIgnored)
    completed, ignored = (
        {event.id for event in overheard.of(job_id, kind)}
        for kind in (events.AnalysisCompleted, events.AnalysisWebhookIgnored)
    )
    assert len(completed) <= 1
    assert len(ignored) <= 1
    if status != "purged":  # the result may have come before the purge, and a copy of its webhook after it
        assert (bool(completed), bool(ignored)) == (status == "completed", status == "cancelled")


class Handled:
    """How many events about each job the replicas of a service have handled since this was made."""

    def __init__(self, proxied: Proxied, service: str) -> None:
        names = [f"{service}-{replica}" for replica in range(1, REPLICAS + 1)]
        self._logs = [LogLines(proxied.stack.log(name)) for name in names]
        self._counts: Counter[str] = Counter()

    async def until(self, wanted: dict[str, int]) -> None:
        """Wait until at least as many events of each job were handled as `wanted` says."""

        async def look() -> bool:
            for log in self._logs:
                self._counts.update(line["job_id"] for line in log.new() if line.get("event") == "event handled")
            return all(self._counts[job_id] >= count for job_id, count in wanted.items())

        await until(look, "every copy of every event handled")


async def insert(jobs: Any, stories: Sequence[Sequence[Event]]) -> None:
    """Insert the jobs of these stories, without their event: only the test publishes their events."""
    await jobs.insert_many([_job(story).model_dump(by_alias=True, exclude={"upload_received"}) for story in stories])


def _job(story: Sequence[Event]) -> Job:
    received = next(event for event in story if isinstance(event, events.UploadReceived))
    return Job.received(received, None)


async def put_twice(
    broker: Broker, story: Sequence[Event], queues: Mapping[type[Event], topology.Queue], chance: random.Random
) -> None:
    """Put every event into its queue twice, in random order."""
    for event in chance.sample([*story, *story], 2 * len(story)):
        await broker.put(queues[type(event)].name, event.encode())


async def has_had(jobs: Any, story: Sequence[Event]) -> dict[str, Any]:
    """Wait until each of these events is in the job's history; return its document."""

    async def look() -> dict[str, Any] | None:
        document: dict[str, Any] = await jobs.find_one({"_id": story[0].subject})
        had = {entry["event_id"] for entry in document["history"]}
        return document if had >= {event.id for event in story} else None

    return await until(look, f"all events of job {story[0].subject}")


def assert_is_by_the_rule(document: dict[str, Any], story: Sequence[Event]) -> None:
    """Every event was applied once, each to the state that the one before left, and the first end stands."""
    told = {event.id: event for event in story}
    order = [told[entry["event_id"]] for entry in document["history"][1:]]
    assert len(order) == len(told), "an event was applied twice"
    job = _job(story)
    for event in order:
        change = apply(job, event)
        assert change is not None
        job = changed(job, change)
    assert Job.model_validate(document).model_dump(exclude={"upload_received"}) == job.model_dump(
        exclude={"upload_received"}
    )
    ends = [STATUS_AFTER[type(event)] for event in order if type(event) in STATUS_AFTER]
    assert document["view"]["status"] == (ends[0] if ends else "processing")


def assert_heard_once(heard: Sequence[Block]) -> None:
    """A listener heard each state once, in order, and the end last."""
    assert [int(block.id or 0) for block in heard] == list(range(1, len(heard) + 1))
    progress = [block.state["progress"] for block in heard]
    assert progress == sorted(progress), f"progress fell: {progress}"
    assert [block.state["status"] == "processing" for block in heard] == [True] * (len(heard) - 1) + [False]


def how(document: dict[str, Any]) -> str:
    """How a job stands."""
    view = document["view"]
    return f"{view['status']}, {view['stage']}, {view['progress']} %"
