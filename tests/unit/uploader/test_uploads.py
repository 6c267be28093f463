"""What becomes of a recording in the inbox, whatever was done of it before a crash."""

import asyncio
import errno
import hashlib
from typing import IO

import pytest

from chassis.errors import AwayError, BackEndError
from chassis.s3 import DeletionError, ForbiddenError
from contracts.events import AudioInfo, AudioRemoved, AudioStored, Event, Reference, UploadReceived, UploadRejected
from contracts.failures import FailureCode
from decoding.errors import RejectedError
from tests.support.uploader_bucket import Bucket
from tests.unit import stories
from uploader.errors import InHandError
from uploader.uploads import Uploads

CONTENT = b"RIFF and so on"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
INBOX = f"inbox/{stories.JOB_ID}"
AUDIO = f"audio/{stories.JOB_ID}.wav"


class Probe:
    """Says of every recording what it was made to say."""

    def __init__(self, found: AudioInfo | Exception = stories.AUDIO) -> None:
        self._found = found
        self.heard: list[bytes] = []

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        self.heard.append(content.read())
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


class Waiting(Probe):
    """Takes until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def inspect(self, content: IO[bytes]) -> AudioInfo:
        self.begun.set()
        await self.go_on.wait()
        return await super().inspect(content)


def uploaded(sha256: str | None = DIGEST) -> UploadReceived:
    return stories.received(digest=sha256)


def stored(event: Event) -> AudioStored:
    assert isinstance(event, AudioStored)
    return event


def rejected(event: Event) -> FailureCode:
    assert isinstance(event, UploadRejected)
    return event.data.code


async def test_a_good_recording_is_kept_as_it_was_sent() -> None:
    storage, probe = Bucket({INBOX: CONTENT}), Probe()
    event = stored(await Uploads(storage, probe).store(uploaded()))
    assert storage.objects[AUDIO] == CONTENT
    assert probe.heard == [CONTENT]
    assert event.data.s3_url == f"s3://sori/{AUDIO}"
    assert (event.data.sha256, event.data.size_bytes, event.data.audio) == (DIGEST, len(CONTENT), stories.AUDIO)
    assert (event.subject, event.data.token_id, event.trace_id) == (
        stories.JOB_ID,
        stories.TOKEN_ID,
        stories.TRACE_ID,
    )


async def test_the_inbox_object_stays_until_the_event_is_published() -> None:
    storage = Bucket({INBOX: CONTENT})
    await Uploads(storage, Probe()).store(uploaded())
    assert INBOX in storage.objects


@pytest.mark.parametrize("lost", [True, False], ids=["inbox deleted", "inbox still there"])
async def test_a_redelivery_says_the_same_again(lost: bool) -> None:
    storage, event = Bucket({INBOX: CONTENT}), uploaded()
    first = stored(await Uploads(storage, Probe()).store(event))
    if lost:
        del storage.objects[INBOX]
    again = stored(await Uploads(storage, Probe()).store(event))
    assert (again.id, again.data) == (first.id, first.data)


@pytest.mark.parametrize("lost", [True, False], ids=["inbox deleted", "inbox still there"])
@pytest.mark.parametrize("reference", [stories.REFERENCE, None], ids=["in the catalogue", "any other token"])
async def test_what_a_recording_is_compared_with_is_passed_on_as_it_came(
    reference: Reference | None, lost: bool
) -> None:
    storage, event = Bucket({INBOX: CONTENT}), stories.received(digest=DIGEST, reference=reference)
    assert stored(await Uploads(storage, Probe()).store(event)).data.reference == reference
    if lost:
        del storage.objects[INBOX]
    assert stored(await Uploads(storage, Probe()).store(event)).data.reference == reference


async def test_what_the_user_noted_is_passed_on_whatever_becomes_of_the_recording() -> None:
    received, purge = uploaded(), stories.purged()
    received = received.model_copy(update={"data": received.data.model_copy(update={"metadata": {"user": 7}})})
    purge = purge.model_copy(update={"data": purge.data.model_copy(update={"metadata": {"user": 7}})})
    uploads = Uploads(Bucket({INBOX: CONTENT}), Probe())
    rejecting = Uploads(Bucket({INBOX: CONTENT}), Probe(RejectedError(FailureCode.NOT_AUDIO)))
    for event in (await uploads.store(received), await rejecting.store(received), await uploads.purge(purge)):
        assert event is not None
        assert event.data.model_dump()["metadata"] == {"user": 7}


async def test_an_inbox_object_that_vanishes_before_the_copy_is_found_where_another_replica_kept_it() -> None:
    storage = Bucket({INBOX: CONTENT})
    storage.large = True
    first = stored(await Uploads(storage, Probe()).store(uploaded()))

    def vanish() -> None:
        storage.objects.pop(INBOX, None)

    storage.before_keep = vanish
    assert stored(await Uploads(storage, Probe()).store(uploaded())).data == first.data


async def test_a_store_that_lost_its_description_of_a_recording_is_answered_from_the_recording_itself() -> None:
    """rclone's server keeps metadata in memory alone."""
    storage, probe, event = Bucket({INBOX: CONTENT}), Probe(), uploaded()
    first = stored(await Uploads(storage, probe).store(event))
    del storage.objects[INBOX]
    storage.descriptions.clear()
    again = stored(await Uploads(storage, probe).store(event))
    assert (again.id, again.data) == (first.id, first.data)
    assert probe.heard == [CONTENT, CONTENT]


async def test_a_kept_recording_that_is_not_what_was_sent_is_not_passed_on() -> None:
    storage = Bucket({AUDIO: CONTENT[:-1]})
    assert rejected(await Uploads(storage, Probe()).store(uploaded())) == FailureCode.CHECKSUM_MISMATCH


async def test_a_purge_removes_all_of_the_job_and_nothing_else() -> None:
    other = stories.JOB_ID.replace("7", "8")
    others = {f"inbox/{other}": b"1", f"audio/{other}.wav": b"2"}
    storage = Bucket({INBOX: b"3", f"{INBOX}.0af3": b"4", AUDIO: CONTENT, **others})
    await Uploads(storage, Probe()).purge(stories.purged())
    assert storage.objects == others
    await Uploads(storage, Probe()).purge(stories.purged())
    assert storage.objects == others


async def test_a_purge_empties_the_inbox_first() -> None:
    """The other way round, an upload under way could copy from there what was just removed."""
    storage = Bucket({})
    await Uploads(storage, Probe()).purge(stories.purged())
    assert storage.removed == [INBOX, f"audio/{stories.JOB_ID}."]


async def test_a_purge_says_that_nothing_is_left() -> None:
    told = await Uploads(Bucket({INBOX: b"3", AUDIO: CONTENT}), Probe()).purge(stories.purged())
    assert isinstance(told, AudioRemoved)
    assert (told.subject, told.data.token_id, told.trace_id) == (stories.JOB_ID, stories.TOKEN_ID, stories.TRACE_ID)


@pytest.mark.parametrize("error", [DeletionError("AccessDenied", [AUDIO]), ForbiddenError("S3", "AccessDenied")])
async def test_a_purge_that_s3_refuses_is_left_to_the_gateway_that_tells_it_again(error: BackEndError) -> None:
    storage = Bucket({AUDIO: CONTENT})
    uploads = Uploads(storage, Probe())
    storage.error = error
    event = stories.purged().model_copy(update={"source": "/sori/gateway"})
    assert await uploads.purge(event) is None, "the gateway tells it again"
    storage.error = None
    assert await uploads.purge(event) is not None


async def test_a_purge_that_nobody_tells_again_is_tried_again_here() -> None:
    """As the bridge's, when a recording was stored after the job's document was gone."""
    storage = Bucket({AUDIO: CONTENT})
    storage.error = DeletionError("AccessDenied", [AUDIO])
    with pytest.raises(DeletionError):
        await Uploads(storage, Probe()).purge(stories.purged().model_copy(update={"source": "/sori/analyzer-bridge"}))


async def test_a_purge_waits_for_an_s3_that_is_away() -> None:
    storage = Bucket({AUDIO: CONTENT})
    storage.error = AwayError("S3", "down")
    uploads = Uploads(storage, Probe())
    with pytest.raises(AwayError):
        await uploads.purge(stories.purged())
    storage.error = None
    assert await uploads.purge(stories.purged()) is not None


@pytest.mark.parametrize("large", [True, False], ids=["copied", "put from memory"])
async def test_a_purge_does_not_say_that_nothing_is_left_while_the_recording_is_being_stored(large: bool) -> None:
    storage, probe = Bucket({INBOX: CONTENT}), Waiting()
    storage.large = large
    uploads = Uploads(storage, probe)
    storing = asyncio.create_task(uploads.store(uploaded()))
    await probe.begun.wait()
    with pytest.raises(InHandError):
        await uploads.purge(stories.purged())
    probe.go_on.set()
    assert isinstance(await storing, UploadRejected if large else AudioStored)
    assert await uploads.purge(stories.purged()) is not None
    assert storage.objects == {}


async def test_what_is_kept_is_told_again_and_not_judged_again() -> None:
    storage = Bucket({INBOX: CONTENT})
    first = stored(await Uploads(storage, Probe()).store(uploaded()))
    strict = Probe(RejectedError(FailureCode.AUDIO_TOO_LONG))
    again = await Uploads(storage, strict).store_again(uploaded())
    assert again is not None
    assert (again.id, stored(again).data) == (first.id, first.data)
    assert strict.heard == []


async def test_a_redriven_recording_that_is_not_kept_is_kept_now_or_rejected_again() -> None:
    told = await Uploads(Bucket({INBOX: CONTENT}), Probe()).store_again(uploaded())
    assert isinstance(told, AudioStored)
    refusing = Uploads(Bucket({INBOX: CONTENT}), Probe(RejectedError(FailureCode.NOT_AUDIO)))
    again = await refusing.store_again(uploaded())
    assert again is not None
    assert rejected(again) == FailureCode.NOT_AUDIO
    missing = await Uploads(Bucket({}), Probe()).store_again(uploaded())
    assert missing is not None
    assert rejected(missing) == FailureCode.AUDIO_MISSING


async def test_what_is_in_hand_is_not_begun_twice() -> None:
    probe = Waiting()
    uploads = Uploads(Bucket({INBOX: CONTENT}), probe)
    storing = asyncio.create_task(uploads.store(uploaded()))
    await probe.begun.wait()
    assert await uploads.store_again(uploaded()) is None
    probe.go_on.set()
    stored(await storing)
    assert probe.heard == [CONTENT]
    assert await uploads.store_again(uploaded()) is not None


async def test_an_upload_that_comes_after_its_purge_finds_nothing() -> None:
    storage = Bucket({INBOX: CONTENT})
    await Uploads(storage, Probe()).purge(stories.purged())
    assert rejected(await Uploads(storage, Probe()).store(uploaded())) == FailureCode.AUDIO_MISSING


def purged_while_it_is_verified(*, large: bool) -> Bucket:
    storage = Bucket({INBOX: CONTENT})
    storage.large, storage.before_keep = large, storage.objects.clear
    return storage


async def test_a_large_upload_that_is_purged_while_it_is_verified_keeps_nothing() -> None:
    storage = purged_while_it_is_verified(large=True)
    assert rejected(await Uploads(storage, Probe()).store(uploaded())) == FailureCode.AUDIO_MISSING
    assert storage.objects == {}


async def test_an_upload_in_memory_that_is_purged_while_it_is_verified_is_announced() -> None:
    """So that it is purged again."""
    storage = purged_while_it_is_verified(large=False)
    first = stored(await Uploads(storage, Probe()).store(uploaded()))
    assert set(storage.objects) == {AUDIO}
    # The same when the process dies before it can say so, and another one is given the message.
    again = stored(await Uploads(storage, Probe()).store(uploaded()))
    assert (again.id, again.data) == (first.id, first.data)
    assert await Uploads(storage, Probe()).purge(stories.purged()) is not None
    assert storage.objects == {}


async def test_an_upload_with_a_part_of_its_own_in_its_key_is_kept_like_any_other() -> None:
    key = f"{INBOX}.0af3"
    event = uploaded()
    event = event.model_copy(update={"data": event.data.model_copy(update={"inbox_key": key})})
    kept = stored(await Uploads(Bucket({key: CONTENT}), Probe()).store(event))
    assert kept.data.s3_url == f"s3://sori/{AUDIO}"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ConnectionError("S3")])
async def test_what_is_wrong_here_is_never_held_against_the_recording(error: Exception) -> None:
    storage = Bucket({INBOX: CONTENT})

    def fail() -> None:
        raise error

    storage.before_keep = fail
    with pytest.raises(type(error)):
        await Uploads(storage, Probe()).store(uploaded())
    with pytest.raises(type(error)):
        await Uploads(Bucket({INBOX: CONTENT}), Probe(error)).store(uploaded())


async def test_a_recording_that_is_nowhere_fails_the_job() -> None:
    assert rejected(await Uploads(Bucket({}), Probe()).store(uploaded())) == FailureCode.AUDIO_MISSING


async def test_another_jobs_recording_is_not_taken_for_this_ones() -> None:
    storage = Bucket({"inbox/other": CONTENT})
    await Uploads(storage, Probe()).store(
        uploaded().model_copy(
            update={
                "subject": stories.JOB_ID.replace("7", "8"),
                "data": uploaded().data.model_copy(update={"inbox_key": "inbox/other"}),
            }
        )
    )
    assert rejected(await Uploads(storage, Probe()).store(uploaded())) == FailureCode.AUDIO_MISSING


async def test_bytes_that_are_not_those_that_were_sent_fail_the_job_before_they_are_decoded() -> None:
    storage, probe = Bucket({INBOX: CONTENT + b"!"}), Probe()
    assert rejected(await Uploads(storage, probe).store(uploaded())) == FailureCode.CHECKSUM_MISMATCH
    assert (probe.heard, set(storage.objects)) == ([], {INBOX})


async def test_a_way_in_that_computes_no_hash_is_welcome() -> None:
    event = stored(await Uploads(Bucket({INBOX: CONTENT}), Probe()).store(uploaded(None)))
    assert event.data.sha256 == DIGEST


@pytest.mark.parametrize("reason", [FailureCode.NOT_AUDIO, FailureCode.AUDIO_TRUNCATED, FailureCode.AUDIO_TOO_LONG])
async def test_what_cannot_be_used_is_rejected_with_its_reason_and_not_kept(reason: FailureCode) -> None:
    storage = Bucket({INBOX: CONTENT})
    uploads = Uploads(storage, Probe(RejectedError(reason)))
    assert rejected(await uploads.store(uploaded())) == reason
    assert set(storage.objects) == {INBOX}


async def test_a_rejection_repeated_has_the_same_id() -> None:
    uploads = Uploads(Bucket({INBOX: CONTENT}), Probe(RejectedError(FailureCode.NOT_AUDIO)))
    assert (await uploads.store(uploaded())).id == (await uploads.store(uploaded())).id


@pytest.mark.parametrize("error", [ConnectionError("S3"), MemoryError(), RejectedError(FailureCode.NOT_AUDIO)])
async def test_the_bytes_are_let_go_of_whatever_happens(error: Exception) -> None:
    storage = Bucket({INBOX: CONTENT})
    uploads = Uploads(storage, Probe(error))
    if isinstance(error, RejectedError):
        await uploads.store(uploaded())
    else:
        with pytest.raises(type(error)):
            await uploads.store(uploaded())
    assert [content.closed for content in storage.opened] == [True]


@pytest.mark.parametrize(
    ("container", "extension", "content_type"),
    [
        ("wav", "wav", "audio/wav"),
        ("flac", "flac", "audio/flac"),
        ("mp3", "mp3", "audio/mpeg"),
        ("ogg", "ogg", "audio/ogg"),
        ("mov", "m4a", "audio/mp4"),
        ("matroska", "webm", "audio/webm"),
        ("aac", "aac", "audio/aac"),
        ("../../x", "bin", "application/octet-stream"),
    ],
)
async def test_the_key_ends_as_analysis_servers_expect(container: str, extension: str, content_type: str) -> None:
    storage = Bucket({INBOX: CONTENT})
    probe = Probe(stories.AUDIO.model_copy(update={"container": container}))
    event = stored(await Uploads(storage, probe).store(uploaded()))
    key = f"audio/{stories.JOB_ID}.{extension}"
    assert event.data.s3_url == f"s3://sori/{key}"
    assert storage.descriptions[key].content_type == content_type
