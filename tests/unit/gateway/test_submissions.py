"""Taking recordings in: what is safe, in which order, before the user is answered; and what a webhook call becomes."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events, problems
from contracts.events import JsonObject
from contracts.job import Job
from gateway.errors import AudioGoneError, BackEndError, ProblemError
from gateway.submissions import (
    JobExistsError,
    Recording,
    StoredAudio,
    Submissions,
    too_large_to_keep,
    webhook_event,
)
from tests.unit import stories

CONTENT = [b"RIFF", b"", b"more of it"]


class Arriving:
    """A file that is still arriving; its name is known at the end, as in a form."""

    def __init__(self, chunks: list[bytes], filename: str | None = "a.wav", error: Exception | None = None) -> None:
        self.filename: str | None = None
        self._chunks = chunks
        self._name = filename
        self._error = error

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._error:
            raise self._error
        self.filename = self._name


class Inbox:
    """The S3 inbox in memory: like the real one, all of an object or nothing."""

    def __init__(self, done: list[str]) -> None:
        self.objects: dict[str, bytes] = {}
        self.kept: dict[str, bytes] = {}
        self.removing_fails = False
        self._done = done

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        self.objects[key] = b"".join([chunk async for chunk in chunks])
        self._done.append("stored")

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        if audio.key not in self.kept:
            raise AudioGoneError
        self.objects[key] = self.kept[audio.key]
        self._done.append("taken back")

    async def remove_all(self, keys: list[str]) -> None:
        if self.removing_fails:
            raise BackEndError("S3")
        for key in keys:
            del self.objects[key]


class Jobs:
    """The job documents in memory; `error` is what inserting raises."""

    def __init__(self, done: list[str], error: BaseException | None = None) -> None:
        self.inserted: list[Job] = []
        self._done = done
        self._error = error

    async def insert(self, job: Job) -> bool:
        if self._error:
            raise self._error
        if any(kept.job_id == job.job_id for kept in self.inserted):
            return False
        self.inserted.append(job)
        self._done.append("inserted")
        return True


class References:
    """What recordings are compared with, by token; `error` is what asking raises."""

    def __init__(self) -> None:
        self.of_tokens: dict[str, events.Reference] = {}
        self.error: Exception | None = None

    async def of(self, token_id: str) -> events.Reference | None:
        if self.error:
            raise self.error
        return self.of_tokens.get(token_id)


class Taken:
    """The core with its stand-ins, and the order of what was done."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.done: list[str] = []
        self.inbox = Inbox(self.done)
        self.jobs = Jobs(self.done, error)
        self.references = References()
        self.submissions = Submissions(self.inbox, self.jobs, self.references)

    async def accept(self, file: Arriving) -> events.UploadReceived:
        return await self.submissions.accept(stories.TOKEN_ID, file, stories.TRACEPARENT)


async def test_a_recording_is_stored_before_its_job_is_kept() -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT))
    assert taken.done == ["stored", "inserted"]
    assert taken.inbox.objects == {event.data.inbox_key: b"".join(CONTENT)}


async def test_a_recording_is_compared_with_what_its_token_has_when_it_comes() -> None:
    taken = Taken()
    assert (await taken.accept(Arriving(CONTENT))).data.reference is None
    taken.references.of_tokens[stories.TOKEN_ID] = stories.REFERENCE
    event = await taken.accept(Arriving(CONTENT))
    assert event.data.reference == stories.REFERENCE
    assert events.decode((taken.jobs.inserted[-1].outbox or "").encode()) == event


async def test_a_recording_that_is_analysed_again_is_compared_with_what_its_token_has_by_now() -> None:
    taken = Taken()
    await taken.accept(Arriving(CONTENT))
    (job,) = taken.jobs.inserted
    audio = StoredAudio(f"audio/{job.job_id}.wav", 4, "audio/wav", '"1"')
    taken.inbox.kept[audio.key] = b"RIFF"
    taken.references.of_tokens[stories.TOKEN_ID] = stories.REFERENCE
    event = await taken.submissions.accept_again(job, audio, stories.TRACEPARENT)
    assert event.data.reference == stories.REFERENCE


async def test_a_catalogue_that_does_not_answer_refuses_the_recording_before_its_bytes_are_stored() -> None:
    taken = Taken()
    taken.references.error = BackEndError("MongoDB")
    with pytest.raises(BackEndError):
        await taken.accept(Arriving(CONTENT))
    assert taken.done == []


async def test_the_event_describes_the_bytes_and_lies_in_the_outbox() -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT))
    assert event.data.size_bytes == len(b"".join(CONTENT))
    assert event.data.sha256 == hashlib.sha256(b"".join(CONTENT)).hexdigest()
    assert (event.data.token_id, event.traceparent) == (stories.TOKEN_ID, stories.TRACEPARENT)
    (job,) = taken.jobs.inserted
    assert events.decode((job.outbox or "").encode()) == event
    assert job.job_id == event.subject
    assert job.view.progress == 10


async def test_every_recording_is_a_job_of_its_own() -> None:
    taken = Taken()
    ids = {(await taken.accept(Arriving(CONTENT))).subject for _ in range(20)}
    assert len(ids) == 20
    assert {str(UUID(job_id)) for job_id in ids} == ids


@pytest.mark.parametrize("error", [BackEndError("MongoDB"), TimeoutError(), KeyboardInterrupt()])
async def test_a_job_that_may_have_been_kept_after_all_keeps_its_bytes(error: BaseException) -> None:
    """An insert of unknown outcome: the relay may take the job up; if there is none, the sweeper takes the bytes."""
    taken = Taken(error)
    with pytest.raises(type(error)):
        await taken.accept(Arriving(CONTENT))
    assert taken.done == ["stored"]
    assert list(taken.inbox.objects.values()) == [b"".join(CONTENT)]


async def test_a_file_that_never_ends_well_becomes_no_job() -> None:
    taken = Taken()
    with pytest.raises(ProblemError):
        await taken.accept(Arriving(CONTENT, error=ProblemError(problems.FORM_MALFORMED)))
    assert (taken.inbox.objects, taken.jobs.inserted) == ({}, [])


OTHER_ID = "11111111-2222-4333-8444-555555555555"
KEPT = StoredAudio(f"audio/{stories.JOB_ID}.wav", 9, "audio/wav", '"e"')


async def test_requests_that_make_the_same_job_write_to_objects_of_their_own_and_one_wins() -> None:
    taken = Taken()
    first = await taken.submissions.accept(stories.TOKEN_ID, Arriving(CONTENT), stories.TRACEPARENT, OTHER_ID)
    with pytest.raises(JobExistsError) as refused:
        await taken.submissions.accept("another", Arriving([b"other"]), stories.TRACEPARENT, OTHER_ID)
    assert refused.value.recording == Recording("another", hashlib.sha256(b"other").hexdigest())
    assert first.subject == OTHER_ID
    assert first.data.inbox_key.startswith(f"inbox/{OTHER_ID}.")
    assert taken.inbox.objects == {first.data.inbox_key: b"".join(CONTENT)}
    assert len(taken.jobs.inserted) == 1


async def test_a_loser_whose_object_cannot_be_removed_has_lost_all_the_same() -> None:
    taken = Taken()
    await taken.submissions.accept(stories.TOKEN_ID, Arriving(CONTENT), stories.TRACEPARENT, OTHER_ID)
    taken.inbox.removing_fails = True
    with pytest.raises(JobExistsError):
        await taken.submissions.accept(stories.TOKEN_ID, Arriving(CONTENT), stories.TRACEPARENT, OTHER_ID)
    assert len(taken.inbox.objects) == 2


async def test_a_retry_is_a_new_job_with_the_old_ones_recording() -> None:
    taken = Taken()
    taken.inbox.kept[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), "녹음.wav")
    event = await taken.submissions.accept_again(old, KEPT, stories.TRACEPARENT)
    (job,) = taken.jobs.inserted
    assert taken.done == ["taken back", "inserted"]
    assert (job.retry_of, job.filename, job.token_id) == (old.job_id, "녹음.wav", old.token_id)
    assert event.subject == job.job_id != old.job_id
    assert (event.data.size_bytes, event.data.sha256) == (KEPT.size_bytes, old.sha256)
    assert taken.inbox.objects == {event.data.inbox_key: b"the audio"}
    assert events.decode((job.outbox or "").encode()) == event


async def test_a_retry_without_a_recording_is_no_job() -> None:
    taken = Taken()
    with pytest.raises(AudioGoneError):
        await taken.submissions.accept_again(Job.received(stories.received(), None), KEPT, stories.TRACEPARENT)
    assert taken.jobs.inserted == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("녹음 🎤.wav", "녹음 🎤.wav"),
        (None, None),
        ("", None),
        ("\x00\x1b\r\n", None),
        ("a\r\nSet-Cookie: x\x00.wav", "aSet-Cookie: x.wav"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("x" * 10_000, "x" * 255),
        ("🎤" * 10_000, "🎤" * 255),
        ("a\u202egnp.wav", "agnp.wav"),
        ("a\ud800b", "ab"),
    ],
)
async def test_a_file_name_is_kept_for_showing_only(sent: str | None, kept: str | None) -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT, sent))
    assert taken.jobs.inserted[0].filename == kept
    assert event.data.inbox_key == f"inbox/{event.subject}"


@given(st.text())
def test_any_file_name_can_be_kept(name: str) -> None:
    taken = Taken()
    asyncio.run(taken.accept(Arriving(CONTENT, name)))
    kept = taken.jobs.inserted[0].filename
    assert kept is None or (kept and kept.encode() and len(kept) <= 255 and not {"\n", "\r", "\0"} & set(kept))


BODY: JsonObject = {"status": "success", "result": {"score": 1}}


def test_the_same_webhook_call_is_the_same_event() -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id == webhook_event(stories.JOB_ID, 1, dict(BODY), stories.TRACEPARENT).id


@pytest.mark.parametrize(
    ("attempt", "body"), [(2, BODY), (1, {"status": "failed"}), (1, {**BODY, "job_id": "1"}), (1, None)]
)
def test_another_webhook_call_is_another_event(attempt: int, body: JsonObject | None) -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id != webhook_event(stories.JOB_ID, attempt, body, stories.TRACEPARENT).id


def test_a_webhook_event_carries_the_body_and_the_trace() -> None:
    event = webhook_event(stories.JOB_ID, 3, BODY, stories.TRACEPARENT)
    assert isinstance(event, events.AnalysisWebhookReceived)
    assert (event.data.attempt, event.data.body) == (3, BODY)
    assert (event.subject, event.trace_id) == (stories.JOB_ID, stories.TRACE_ID)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"status": "success", "result": {"a": 1}}, len('{"a":1}')),
        ({"status": "completed", "analysis_results": {"가": None}}, len('{"가":null}'.encode())),
        ({"status": "success", "result": {"a": 1e15}}, len('{"a":1000000000000000.0}')),
        ({"status": "failed", "error": "x" * 100}, 0),
        ({"status": "success", "result": "x" * 100}, 0),
        ({"padding": "x" * 100}, 0),
    ],
)
def test_the_limit_is_on_the_result_alone_as_it_is_kept(body: JsonObject, size: int) -> None:
    assert not too_large_to_keep(body, size)
    assert too_large_to_keep(body, size - 1) == (size > 0)


@pytest.mark.parametrize(("levels", "too_deep"), [(98, False), (99, True), (150, True)])
def test_what_is_nested_so_deeply_that_an_event_could_not_carry_it_is_not_kept(levels: int, too_deep: bool) -> None:
    result = events.from_json('{"a":' * levels + "1" + "}" * levels)
    body: JsonObject = {"status": "success", "result": result}
    assert too_large_to_keep(body, 10**6) == too_deep
    if not too_deep:
        event = webhook_event(stories.JOB_ID, 1, body, stories.TRACEPARENT)
        assert events.decode(event.encode()) == event
