"""Taking recordings in: what is safe, in which order, before the user is answered."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import BackEndError
from contracts import events, problems
from contracts.addresses import CatalogueAddresses
from contracts.catalogue import Script, Token
from contracts.events import JsonObject
from contracts.job import MAX_RETRIES, Job
from contracts.metadata import terms
from gateway.audio import AudioGoneError, Recording, StoredAudio
from gateway.references.references import References
from gateway.uploads.submissions import Dubbed, JobExistsError, RetriesSpentError, Submissions
from gateway.web.problems import ProblemError
from tests.support.gateway_stores import Bucket, Jobs
from tests.support.references import Decoder, Records, Tokens
from tests.unit import stories

REDRIVE_AFTER = timedelta(seconds=60)
CONTENT = [b"RIFF", b"", b"more of it"]


class Arriving:
    """A file that is still arriving; its name and metadata are known at the end, as in a form."""

    given_metadata: JsonObject | None = None

    def __init__(self, chunks: list[bytes], filename: str | None = "a.wav", error: Exception | None = None) -> None:
        self.filename: str | None = None
        self.metadata: JsonObject | None = None
        self._chunks = chunks
        self._name = filename
        self._error = error

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._error:
            raise self._error
        self.filename = self._name
        self.metadata = self.given_metadata


TOKEN = Token(
    id=7,
    token_name="Truth",
    actor_name="Jack",
    start_time=0,
    end_time=4,
    reference_audio_url=stories.REFERENCE.audio_url,
    s3_textgrid_url=stories.REFERENCE.textgrid_url,
    s3_pitch_url=stories.REFERENCE.pitch_url,
)
SCRIPTS = tuple(
    Script(id=one.script_id, token_id=7, start_time=one.start_seconds, end_time=one.end_seconds, script=one.script)
    for one in stories.REFERENCE.scripts
)


class Taken:
    """The core with its stand-ins, and the order of what was done."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.done: list[str] = []
        self.bucket = Bucket(done=self.done)
        self.jobs = Jobs(done=self.done)
        self.jobs.error = error
        self.tokens = Tokens(scripts=SCRIPTS)
        references = References(self.tokens, Records(self.tokens), self.bucket, Decoder(), CatalogueAddresses("sori"))
        self._references = references
        self.submissions = self.another()

    def another(self) -> Submissions:
        """The core of one more replica."""
        return Submissions(self.bucket, self.jobs, self._references, REDRIVE_AFTER)

    @property
    def inserted(self) -> list[Job]:
        return list(self.jobs.kept.values())

    async def accept(self, file: Arriving, token_id: str = stories.TOKEN_ID) -> events.UploadReceived:
        return await self.submissions.accept(dubbed(token_id), file)

    def know_token(self) -> None:
        """Have the catalogue know token 7, with all of stories.REFERENCE."""
        self.tokens.kept |= Tokens(TOKEN).kept


def dubbed(token_id: str = stories.TOKEN_ID) -> Dubbed:
    return Dubbed(token_id, None, stories.TRACEPARENT)


async def test_a_recording_is_stored_before_its_job_is_kept() -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT))
    assert taken.done == ["stored", "inserted"]
    assert taken.bucket.objects == {event.data.inbox_key: b"".join(CONTENT)}


async def test_a_recording_is_compared_with_what_its_token_has_when_it_comes() -> None:
    taken = Taken()
    assert (await taken.accept(Arriving(CONTENT), "7")).data.reference is None
    taken.know_token()
    event = await taken.accept(Arriving(CONTENT), "7")
    assert event.data.reference == stories.REFERENCE
    assert events.decode((taken.inserted[-1].upload_received or "").encode()) == event


async def test_a_recording_that_is_analysed_again_is_compared_with_what_its_token_has_by_now() -> None:
    taken = Taken()
    await taken.accept(Arriving(CONTENT), "7")
    (job,) = taken.inserted
    audio = StoredAudio(f"audio/{job.job_id}.wav", 4, "audio/wav", '"1"')
    taken.bucket.objects[audio.key] = b"RIFF"
    taken.know_token()
    event = await taken.submissions.accept_again(job, audio, stories.TRACEPARENT)
    assert event.data.reference == stories.REFERENCE


async def test_a_catalogue_that_does_not_answer_refuses_the_recording_before_its_bytes_are_stored() -> None:
    taken = Taken()
    taken.tokens.error = BackEndError("MongoDB", "down")
    with pytest.raises(BackEndError):
        await taken.accept(Arriving(CONTENT), "7")
    assert taken.done == []


async def test_the_event_describes_the_bytes_and_lies_in_the_job() -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT))
    assert event.data.size_bytes == len(b"".join(CONTENT))
    assert event.data.sha256 == hashlib.sha256(b"".join(CONTENT)).hexdigest()
    assert (event.data.token_id, event.traceparent) == (stories.TOKEN_ID, stories.TRACEPARENT)
    (job,) = taken.inserted
    assert events.decode((job.upload_received or "").encode()) == event
    assert job.job_id == event.subject
    assert job.view.progress == 10


async def test_every_recording_is_a_job_of_its_own() -> None:
    taken = Taken()
    ids = {(await taken.accept(Arriving(CONTENT))).subject for _ in range(20)}
    assert len(ids) == 20
    assert {str(UUID(job_id)) for job_id in ids} == ids


@pytest.mark.parametrize("error", [BackEndError("MongoDB", "down"), TimeoutError(), KeyboardInterrupt()])
async def test_a_job_that_may_have_been_kept_after_all_keeps_its_bytes(error: BaseException) -> None:
    """An insert of unknown outcome: the job may be told again; if there is none, the sweeper takes the bytes."""
    taken = Taken(error)
    with pytest.raises(type(error)):
        await taken.accept(Arriving(CONTENT))
    assert taken.done == ["stored"]
    assert list(taken.bucket.objects.values()) == [b"".join(CONTENT)]


async def test_a_file_that_never_ends_well_becomes_no_job() -> None:
    taken = Taken()
    with pytest.raises(ProblemError):
        await taken.accept(Arriving(CONTENT, error=ProblemError(problems.FORM_MALFORMED)))
    assert (taken.bucket.objects, taken.inserted) == ({}, [])


OTHER_ID = "11111111-2222-4333-8444-555555555555"
KEPT = StoredAudio(f"audio/{stories.JOB_ID}.wav", 9, "audio/wav", '"e"')


async def test_requests_that_make_the_same_job_write_to_objects_of_their_own_and_one_wins() -> None:
    taken = Taken()
    first = await taken.submissions.accept(dubbed(), Arriving(CONTENT), OTHER_ID)
    with pytest.raises(JobExistsError) as refused:
        await taken.submissions.accept(dubbed("another"), Arriving([b"other"]), OTHER_ID)
    assert refused.value.recording == Recording("another", hashlib.sha256(b"other").hexdigest())
    assert first.subject == OTHER_ID
    assert first.data.inbox_key.startswith(f"inbox/{OTHER_ID}.")
    assert taken.bucket.objects == {first.data.inbox_key: b"".join(CONTENT)}
    assert len(taken.inserted) == 1


async def test_a_loser_whose_object_cannot_be_removed_has_lost_all_the_same() -> None:
    taken = Taken()
    await taken.submissions.accept(dubbed(), Arriving(CONTENT), OTHER_ID)
    taken.bucket.broken = {"remove_all"}
    with pytest.raises(JobExistsError):
        await taken.submissions.accept(dubbed(), Arriving(CONTENT), OTHER_ID)
    assert len(taken.bucket.objects) == 2


async def test_a_retry_is_a_new_job_with_the_old_ones_recording() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), "녹음.wav")
    event = await taken.submissions.accept_again(old, KEPT, stories.TRACEPARENT)
    (job,) = taken.inserted
    assert taken.done == ["taken back", "inserted"]
    assert (job.retry_of, job.filename, job.token_id) == (old.job_id, "녹음.wav", old.token_id)
    assert (job.recording_of, job.retry_number) == (old.job_id, 1)
    assert event.subject == job.job_id != old.job_id
    assert (event.data.size_bytes, event.data.sha256) == (KEPT.size_bytes, old.sha256)
    assert taken.bucket.objects == {KEPT.key: b"the audio", event.data.inbox_key: b"the audio"}
    assert events.decode((job.upload_received or "").encode()) == event


async def test_a_retry_is_its_recordings_owners() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), None).model_copy(update={"owner": "user:" + "0a" * 16})
    event = await taken.submissions.accept_again(old, KEPT, stories.TRACEPARENT)
    assert event.data.owner == taken.inserted[0].owner == old.owner


async def test_so_many_retries_of_a_recording_are_made_and_no_more_a_retrys_retry_included() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), None)

    async def again() -> events.UploadReceived | None:
        one = random.Random(len(taken.inserted)).choice([old, *taken.inserted])
        try:
            return await taken.submissions.accept_again(one, KEPT, stories.TRACEPARENT)
        except RetriesSpentError:
            return None

    made = [await again() for _ in range(3)] + await asyncio.gather(*(again() for _ in range(40)))
    assert sum(one is not None for one in made) == MAX_RETRIES
    assert sorted(job.retry_number or 0 for job in taken.inserted) == list(range(1, MAX_RETRIES + 1))
    assert {job.recording_of for job in taken.inserted} == {old.job_id}
    assert taken.done.count("taken back") == MAX_RETRIES, "none is copied in vain"
    del taken.jobs.kept[taken.inserted[4].job_id]
    assert await again() is not None, "one that was purged makes room"
    assert await again() is None


async def test_retries_that_meet_those_of_another_replica_are_no_more_and_leave_nothing() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), None)
    replicas = [taken.submissions, *(taken.another() for _ in range(4))]

    async def again(replica: Submissions) -> bool:
        try:
            await replica.accept_again(old, KEPT, stories.TRACEPARENT)
        except RetriesSpentError:
            return False
        return True

    made = await asyncio.gather(*(again(replica) for _ in range(8) for replica in replicas))
    assert made.count(True) == len(taken.inserted) == MAX_RETRIES
    keys = {f"inbox/{job.job_id}" for job in taken.inserted}
    assert set(taken.bucket.objects) == {KEPT.key, *keys}


async def test_a_retry_of_an_earlier_version_counts_for_the_recording_that_it_names() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    old = Job.received(stories.received(), None, retry_of=OTHER_ID)
    await taken.submissions.accept_again(old, KEPT, stories.TRACEPARENT)
    assert taken.inserted[0].recording_of == OTHER_ID


async def test_a_job_says_when_the_request_began_that_brought_it() -> None:
    taken, began = Taken(), events.now() - timedelta(hours=1)
    taken.bucket.objects[KEPT.key] = b"the audio"
    upload = await taken.submissions.accept(Dubbed("a", None, stories.TRACEPARENT, began), Arriving(CONTENT))
    before = events.now()
    retry = await taken.submissions.accept_again(Job.received(stories.received(), None), KEPT, stories.TRACEPARENT)
    assert taken.jobs.kept[upload.subject].began_at == began
    assert before <= (taken.jobs.kept[retry.subject].began_at or began) <= retry.time


async def test_metadata_is_in_the_event_and_the_job_and_stays_with_a_retry() -> None:
    taken = Taken()
    taken.bucket.objects[KEPT.key] = b"the audio"
    file = Arriving(CONTENT)
    file.given_metadata = {"user": 7, "a.b": None, "$set": {"x": 2**70}}
    event = await taken.accept(file)
    again = await taken.submissions.accept_again(taken.inserted[0], KEPT, stories.TRACEPARENT)
    assert event.data.metadata == again.data.metadata == file.given_metadata
    assert [job.metadata for job in taken.inserted] == [file.given_metadata, file.given_metadata]
    assert taken.inserted[1].metadata_terms == taken.inserted[0].metadata_terms == terms(file.given_metadata)


async def test_a_retry_without_a_recording_is_no_job() -> None:
    taken = Taken()
    with pytest.raises(AudioGoneError):
        await taken.submissions.accept_again(Job.received(stories.received(), None), KEPT, stories.TRACEPARENT)
    assert taken.inserted == []


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("녹음 🎤.wav", "녹음 🎤.wav"),
        (None, None),
        ("", None),
        ("\x00\x1b\r\n", None),
        ("a\r\nSet-Cookie: x\x00.wav", "aSet-Cookie: x.wav"),
        ("../../etc/passwd", "passwd"),
        ("C:\\fakepath\\녹음.wav", "녹음.wav"),
        ("\\\\host\\share\\a.wav", "a.wav"),
        ("a\\b.wav", "a\\b.wav"),
        ("take 1/", "take 1"),
        ("///", "///"),
        ("..", ".."),
        ("x" * 10_000, "x" * 255),
        ("🎤" * 10_000, "🎤" * 255),
        ("a\u202egnp.wav", "agnp.wav"),
        ("a\ud800b", "ab"),
    ],
)
async def test_a_file_name_is_kept_for_showing_only(sent: str | None, kept: str | None) -> None:
    taken = Taken()
    event = await taken.accept(Arriving(CONTENT, sent))
    assert taken.inserted[0].filename == kept
    assert event.data.inbox_key == f"inbox/{event.subject}"


@given(st.text())
def test_any_file_name_can_be_kept(name: str) -> None:
    taken = Taken()
    asyncio.run(taken.accept(Arriving(CONTENT, name)))
    kept = taken.inserted[0].filename
    assert kept is None or (kept and kept.encode() and len(kept) <= 255 and not {"\n", "\r", "\0"} & set(kept))
