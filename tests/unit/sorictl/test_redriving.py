"""Which jobs are told again, by which event, and how a job's event is rebuilt when nobody has kept it."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from contracts import topology
from contracts.events import Event, UploadReceived, event_id
from contracts.job import Job, Status
from sorictl.redriving import choose, rebuilt, redrive
from tests.support.events import Story

NOW = datetime.now(UTC)


def received() -> tuple[Job, UploadReceived]:
    event = Story(str(uuid.uuid4())).upload_received(age=timedelta(hours=1))
    return Job.received(event, None), event


def ended(job: Job) -> Job:
    return job.model_copy(update={"view": job.view.model_copy(update={"status": Status.COMPLETED})})


class Queues:
    """What was put into which queue, in memory."""

    def __init__(self) -> None:
        self.put: list[tuple[str, Event]] = []

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        self.put.append((queue.name, event))


async def test_a_job_is_told_again_to_the_uploader_alone_by_the_event_that_it_began_with() -> None:
    job, event = received()
    choice = choose([job.job_id, job.job_id], {job.job_id: job})
    assert (choice.events, choice.refusals) == ([event], {})
    queues = Queues()
    await redrive(queues, choice.events)
    assert queues.put == [("uploader.upload.received.v1", event)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"cancel_asked_at": NOW}, "it is to be cancelled."),
        ({"purge_asked_at": NOW}, "it is to be purged."),
        ({"upload_received": None}, "its event is not kept; `sorictl setup` rebuilds those of earlier versions."),
        ({"upload_received": "{}"}, "its event cannot be read (invalid event: "),
        (
            {"upload_received": Story(str(uuid.uuid4())).audio_stored().encode().decode()},
            "its event is audio.stored.v1, not upload.received.v1.",
        ),
    ],
)
def test_what_is_not_told_again_says_why(changes: dict[str, object], why: str) -> None:
    job, _ = received()
    choice = choose([job.job_id], {job.job_id: job.model_copy(update=changes)})
    assert choice.events == []
    assert choice.refusals[job.job_id].startswith(why)


def test_unknown_and_ended_jobs_are_refused_and_the_others_are_told() -> None:
    (job, event), (done, _) = received(), received()
    choice = choose(["unknown", done.job_id, job.job_id], {job.job_id: job, done.job_id: ended(done)})
    assert choice.events == [event]
    assert choice.refusals == {"unknown": "there is no such job.", done.job_id: "it has ended (completed)."}


def test_a_rebuilt_event_is_a_repeat_of_the_lost_one() -> None:
    job, lost = received()
    event = rebuilt(job)
    assert event.id == event_id(job.job_id, UploadReceived.TYPE, "") == lost.id
    assert (event.subject, event.traceparent, event.time) == (job.job_id, lost.traceparent, job.created_at)
    known = ("token_id", "inbox_key", "sha256", "reference")
    assert event.data.model_dump(include=set(known)) == lost.data.model_dump(include=set(known))
