"""S3 as the gateway and the uploader use it, and the stand-ins of the unit tests: both keep the same promises."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from chassis.errors import ObjectMissingError
from chassis.settings import S3Settings
from gateway import storage as gateway_storage
from gateway.audio import AudioGoneError, ObjectStore, StoredAudio
from local_stack.stack import Stack
from tests.support import gateway_stores, uploader_bucket
from tests.unit import stories
from uploader import storage as uploader_storage
from uploader.uploads import StoredRecording

UploaderStore = uploader_bucket.Bucket | uploader_storage.Bucket

CONTENT = b"sound of a recording"
BOTH = ["in memory", "S3"]


def settings(stack: Stack) -> S3Settings:
    wanted = S3Settings.model_fields
    return S3Settings.model_validate({name: stack.settings[name.upper()] for name in wanted})


@pytest.fixture(params=BOTH)
async def store(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[ObjectStore]:
    """The gateway's: the stand-in, then the real one."""
    if request.param == "in memory":
        yield gateway_stores.Bucket()
        return
    async with gateway_storage.Bucket(settings(stack)) as bucket:
        yield bucket


@pytest.fixture(params=BOTH)
async def uploads(request: pytest.FixtureRequest, stack: Stack) -> AsyncIterator[tuple[UploaderStore, str]]:
    """The uploader's likewise, with the key of an object that is there."""
    key = f"suite/{uuid4()}"
    if request.param == "in memory":
        yield uploader_bucket.Bucket({key: CONTENT}), key
        return
    async with gateway_storage.Bucket(settings(stack)) as writer, uploader_storage.Bucket(settings(stack)) as bucket:
        await writer.write(key, chunks(CONTENT))
        yield bucket, key
        await writer.remove_under(key)


async def chunks(*pieces: bytes | Exception) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    """What lies under the prefix, whenever it was written."""
    soon = datetime.now(UTC) + timedelta(minutes=5)
    return sorted([key async for page in store.older_than(prefix, soon) for key in page])


async def audio_at(store: ObjectStore, key: str) -> StoredAudio:
    if isinstance(store, gateway_storage.Bucket):
        found = await store.find(key)
        assert found is not None
        return found
    return StoredAudio(key, len(CONTENT), "audio/wav", '"1"')


async def test_what_was_written_is_there_until_it_is_removed(store: ObjectStore) -> None:
    prefix = f"suite/{uuid4()}"
    await store.write(f"{prefix}/a", chunks(CONTENT[:5], CONTENT[5:]))
    await store.write(f"{prefix}/b", chunks(CONTENT))
    assert await keys(store, prefix) == [f"{prefix}/a", f"{prefix}/b"]
    await store.remove_all([f"{prefix}/a", f"{prefix}/never-there"])
    assert await keys(store, prefix) == [f"{prefix}/b"]
    await store.remove_under(prefix)
    await store.remove_under(prefix)
    assert await keys(store, prefix) == []


async def test_a_file_that_breaks_off_leaves_nothing(store: ObjectStore) -> None:
    prefix = f"suite/{uuid4()}"
    with pytest.raises(ConnectionResetError):
        await store.write(f"{prefix}/a", chunks(CONTENT, ConnectionResetError()))
    assert await keys(store, prefix) == []


async def test_what_was_written_lately_is_not_old(store: ObjectStore) -> None:
    prefix = f"suite/{uuid4()}"
    await store.write(f"{prefix}/a", chunks(CONTENT))
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert [key async for page in store.older_than(prefix, an_hour_ago) for key in page] == []
    await store.remove_under(prefix)


async def test_kept_audio_is_copied_as_long_as_it_is_there(store: ObjectStore) -> None:
    prefix = f"suite/{uuid4()}"
    await store.write(f"{prefix}/a", chunks(CONTENT))
    audio = await audio_at(store, f"{prefix}/a")
    await store.take_back(audio, f"{prefix}/b")
    assert await keys(store, prefix) == [f"{prefix}/a", f"{prefix}/b"]
    await store.remove_all([f"{prefix}/a"])
    with pytest.raises(AudioGoneError):
        await store.take_back(audio, f"{prefix}/c")
    assert await keys(store, prefix) == [f"{prefix}/b"]
    await store.remove_under(prefix)


async def test_the_uploader_reads_what_is_there_and_is_told_what_is_not(uploads: tuple[UploaderStore, str]) -> None:
    store, key = uploads
    fetched = await store.fetch(key)
    with fetched.content as content:
        assert content.read() == CONTENT
    assert (fetched.size_bytes, fetched.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    with pytest.raises(ObjectMissingError):
        await store.fetch(f"{key}-never-there")


async def test_a_recording_is_kept_with_what_was_found_out(uploads: tuple[UploaderStore, str]) -> None:
    store, key = uploads
    recording = StoredRecording(stories.AUDIO, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "audio/wav")
    assert await store.find(f"{key}-kept.") is None
    fetched = await store.fetch(key)
    with fetched.content:
        url = await store.keep(fetched, f"{key}-kept.wav", recording)
    kept = await store.find(f"{key}-kept.")
    assert kept is not None
    assert (kept.key, kept.url, kept.recording) == (f"{key}-kept.wav", url, recording)
    await store.remove_all(f"{key}-kept")
    await store.remove_all(f"{key}-kept")
    assert await store.find(f"{key}-kept.") is None


async def test_what_is_in_memory_is_kept_though_its_own_object_is_gone_and_what_is_large_is_not(
    uploads: tuple[UploaderStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = uploads
    recording = StoredRecording(stories.AUDIO, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), "audio/wav")
    fetched = await store.fetch(key)
    with fetched.content:
        await store.remove_all(key)
        await store.keep(fetched, f"{key}-kept.wav", recording)
        await store.remove_all(f"{key}-kept")
        if isinstance(store, uploader_bucket.Bucket):
            store.large = True
        monkeypatch.setattr(uploader_storage, "MEMORY_BYTES", 1)
        with pytest.raises(ObjectMissingError):
            await store.keep(fetched, f"{key}-kept.wav", recording)
    assert await store.find(f"{key}-kept.") is None


async def test_what_the_uploader_discards_is_deleted_soon(uploads: tuple[UploaderStore, str]) -> None:
    store, key = uploads
    store.discard(key)
    store.discard(f"{key}-never-there")
    await store.delete_discarded()
    assert await store.find(key) is None
