"""Stores that are not AWS: what uploader, gateway and analysis server ask of S3 works at the strictest of them."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aioboto3
import pytest
from botocore.exceptions import ClientError

from analysis_server import storage as analysis_storage
from analysis_server.settings import Settings
from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.s3 import DeletionError
from chassis.settings import S3Settings
from gateway import storage as gateway_storage
from gateway.audio import AudioGoneError
from tests.support.strict_s3 import BUCKET, KEYS, MIN_PART_BYTES, REGION, Stored, StrictS3
from tests.unit import stories
from uploader import storage as uploader_storage
from uploader.uploads import StoredRecording

STORES: dict[str, dict[str, Any]] = {
    "as AWS": {},
    "wants Content-MD5": {"wants_content_md5": True},
    "knows no checksums": {"knows_checksums": False},
    "knows no Expect": {"knows_expect": False},
    "no batches, as Google": {"batch_refusal": (501, "NotImplemented")},
    "no batches, as Google once": {"batch_refusal": (400, "InvalidArgument")},
    "no batches, as Huawei": {"batch_refusal": (405, "MethodNotAllowed")},
    "no batches, as Alibaba": {"batch_refusal": (400, "MissingArgument")},
    "no batches, wrong digest": {"batch_refusal": (400, "InvalidDigest")},
    "no batches, wrong signature": {"batch_refusal": (403, "SignatureDoesNotMatch")},
    "no batches, in HTML": {"batch_refusal": (405, "")},
    "fails in batches": {"batch_refusal": (500, "InternalError")},
    "says what was not there": {"says_what_was_not_there": True},
    "says it, and has no batches": {"says_what_was_not_there": True, "batch_refusal": (501, "NotImplemented")},
    "all of it": {
        "wants_content_md5": True,
        "knows_checksums": False,
        "knows_expect": False,
        "batch_refusal": (501, "NotImplemented"),
        "says_what_was_not_there": True,
        "lists_uploads": False,
    },
}
ODD_KEYS = ["a b", "a+b", "a%20b", "a#b?c&d", "녹음 파일.wav", "a//b", "/a", "a=b;c,d'e\"<f>", "a~(b)*!"]
CONTENT = b"sound of a recording"
RECORDING = StoredRecording(stories.AUDIO, stories.SHA256, len(CONTENT), "audio/wav")


@dataclass
class Buckets:
    """One store, and what each service has of it."""

    store: StrictS3
    gateway: gateway_storage.Bucket
    uploader: uploader_storage.Bucket
    analysis: analysis_storage.Bucket


Opening = Callable[..., Any]


def settings(store: StrictS3) -> Mapping[str, str]:
    return {name.lower(): value for name, value in store.settings.items()}


@pytest.fixture
def store() -> Iterator[StrictS3]:
    with StrictS3().running() as running:
        yield running


@pytest.fixture
async def buckets(store: StrictS3) -> AsyncIterator[Buckets]:
    given = S3Settings.model_validate(settings(store))
    async with (
        gateway_storage.Bucket(given) as gateway,
        uploader_storage.Bucket(given) as uploader,
        analysis_storage.Bucket(Settings.model_validate({**settings(store), "storage_seconds": 1})) as analysis,
    ):
        yield Buckets(store, gateway, uploader, analysis)


PARTICULAR_ABOUT_WRITES = ["as AWS", "knows no checksums", "knows no Expect", "says what was not there", "all of it"]


@pytest.fixture(params=STORES)
def any_store(request: pytest.FixtureRequest, store: StrictS3) -> StrictS3:
    """Every kind of store, one after the other."""
    for name, value in STORES[request.param].items():
        setattr(store, name, value)
    return store


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def keep(buckets: Buckets, key: str, audio_key: str) -> None:
    fetched = await buckets.uploader.fetch(key)
    with fetched.content:
        await buckets.uploader.keep(fetched, audio_key, RECORDING)


def batches(store: StrictS3) -> int:
    return sum(line.startswith("POST") and line.endswith("?delete") for line in store.asked)


async def test_a_recording_goes_its_whole_way_and_is_removed_at_every_store(
    any_store: StrictS3, buckets: Buckets, tmp_path: Path
) -> None:
    await buckets.gateway.write("inbox/1", chunks(CONTENT), "audio/wav")
    fetched = await buckets.uploader.fetch("inbox/1")
    with fetched.content as content:
        assert content.read() == CONTENT
        assert await buckets.uploader.keep(fetched, "audio/1.wav", RECORDING) == f"s3://{BUCKET}/audio/1.wav"
    buckets.uploader.discard("inbox/1")
    buckets.uploader.discard("inbox/never-there")
    await buckets.uploader.delete_discarded()
    assert any_store.objects.keys() == {"audio/1.wav"}
    kept = await buckets.uploader.find("audio/1.")
    assert kept is not None
    assert kept.recording == RECORDING
    await buckets.analysis.fetch("audio/1.wav", tmp_path / "audio", len(CONTENT))
    assert (tmp_path / "audio").read_bytes() == CONTENT
    audio = await buckets.gateway.find_audio("1")
    assert audio is not None
    async with buckets.gateway.read(audio, 3, 6) as part:
        assert b"".join([piece async for piece in part]) == CONTENT[3:7]
    await buckets.gateway.take_back(audio, "inbox/2")
    for prefix in ("inbox/", "audio/1."):
        await buckets.uploader.remove_all(prefix)
    assert any_store.objects == {}
    with pytest.raises(AudioGoneError):
        await buckets.gateway.take_back(audio, "inbox/2")
    with pytest.raises(ObjectMissingError):
        await buckets.uploader.fetch("inbox/2")


@pytest.mark.parametrize("any_store", PARTICULAR_ABOUT_WRITES, indirect=True)
async def test_what_is_large_goes_in_parts_at_every_store(any_store: StrictS3, buckets: Buckets) -> None:
    content = bytes(range(256)) * (2 * MIN_PART_BYTES // 256) + b"end"
    await buckets.gateway.write("references/1/a", chunks(content))
    assert any_store.objects["references/1/a"].content == content
    assert await buckets.gateway.abort_unfinished("references/", datetime.now(UTC)) == 0
    await buckets.gateway.remove_under("references/1")
    assert (any_store.objects, any_store.uploads) == ({}, {})


@pytest.mark.parametrize("any_store", PARTICULAR_ABOUT_WRITES, indirect=True)
async def test_the_analysis_server_keeps_and_forgets_at_every_store(any_store: StrictS3, buckets: Buckets) -> None:
    await buckets.analysis.write("analysis-server/a", b"kept")
    assert await buckets.analysis.read_now("analysis-server/a", 4) == b"kept"
    assert (await buckets.analysis.listed("analysis-server/")).keys() == {"analysis-server/a"}
    for _ in range(2):
        await buckets.analysis.remove("analysis-server/a")
    assert any_store.objects == {}


@pytest.mark.parametrize("batch_refusal", [None, (501, "NotImplemented")], ids=["in one call", "one by one"])
async def test_any_key_is_written_copied_listed_and_deleted(
    store: StrictS3, buckets: Buckets, batch_refusal: tuple[int, str] | None
) -> None:
    store.batch_refusal = batch_refusal
    for key in ODD_KEYS:
        await buckets.gateway.write(f"odd/{key}", chunks(CONTENT))
        await keep(buckets, f"odd/{key}", f"copy/{key}")
    assert store.objects.keys() == {f"{place}/{key}" for place in ("odd", "copy") for key in ODD_KEYS}
    assert (await buckets.analysis.listed("odd/")).keys() == {f"odd/{key}" for key in ODD_KEYS}
    assert await buckets.analysis.read("copy/a+b", 100) == CONTENT
    for prefix in ("odd/", "copy/"):
        await buckets.uploader.remove_all(prefix)
    assert store.objects == {}


async def test_a_refused_batch_is_not_tried_again(store: StrictS3, buckets: Buckets) -> None:
    store.batch_refusal = (501, "NotImplemented")
    for number in range(3):
        await buckets.gateway.write(f"inbox/{number}", chunks(CONTENT))
        await buckets.gateway.remove_all([f"inbox/{number}"])
    assert batches(store) == 1
    assert store.objects == {}


async def test_many_objects_are_removed_in_few_calls_by_a_store_that_takes_them(
    store: StrictS3, buckets: Buckets
) -> None:
    store.wants_content_md5 = True
    store.objects |= {f"inbox/{number:04}": Stored(CONTENT, "audio/wav", {}) for number in range(1100)}
    await buckets.uploader.remove_all("inbox/")
    assert store.objects == {}
    assert batches(store) == 2


@pytest.mark.parametrize("batch_refusal", [None, (501, "NotImplemented"), (403, "AccessDenied")], ids=str)
async def test_what_the_store_does_not_let_go_of_is_told_until_it_does(
    store: StrictS3, buckets: Buckets, batch_refusal: tuple[int, str] | None
) -> None:
    store.batch_refusal, store.deletes = batch_refusal, False
    await buckets.gateway.write("audio/1.wav", chunks(CONTENT))
    with pytest.raises(DeletionError, match="AccessDenied"):
        await buckets.uploader.remove_all("audio/1.")
    with pytest.raises(DeletionError, match="AccessDenied"):
        await buckets.gateway.remove_all(["audio/1.wav"])
    store.deletes = True
    await buckets.uploader.remove_all("audio/1.")
    assert store.objects == {}


async def test_a_store_that_only_says_that_it_has_deleted_is_not_believed(store: StrictS3, buckets: Buckets) -> None:
    store.ignores_batches = True
    await buckets.gateway.write("audio/1.wav", chunks(CONTENT))
    with pytest.raises(DeletionError, match="still listed"):
        await buckets.uploader.remove_all("audio/1.")


async def test_a_store_that_is_overloaded_is_not_asked_one_by_one(store: StrictS3, buckets: Buckets) -> None:
    store.batch_refusal = (503, "SlowDown")
    await buckets.gateway.write("audio/1.wav", chunks(CONTENT))
    with pytest.raises(AwayError):
        await buckets.uploader.remove_all("audio/1.")
    assert not any(line.startswith("DELETE") for line in store.asked)


async def test_a_store_without_the_bucket_has_deleted_nothing(buckets: Buckets) -> None:
    given = S3Settings.model_validate({**settings(buckets.store), "s3_bucket_name": "another"})
    async with uploader_storage.Bucket(given) as wrong:
        with pytest.raises(BackEndError, match="NoSuchBucket"):
            await wrong.remove_all("audio/1.")


async def test_what_is_discarded_is_behind_what_the_store_keeps(store: StrictS3, buckets: Buckets) -> None:
    await buckets.gateway.write("inbox/1", chunks(CONTENT))
    buckets.uploader.discard("inbox/1")
    store.deletes = False
    await buckets.uploader.delete_discarded()
    store.deletes = True
    await buckets.uploader.delete_discarded()
    assert store.objects == {}


@pytest.mark.parametrize("written", [str.upper, str.title])
async def test_a_description_is_read_however_the_store_writes_its_names(
    store: StrictS3, buckets: Buckets, written: Callable[[str], str]
) -> None:
    await buckets.gateway.write("inbox/1", chunks(CONTENT))
    await keep(buckets, "inbox/1", "audio/1.wav")
    stored = store.objects["audio/1.wav"]
    stored.metadata = {written(name): value for name, value in stored.metadata.items()}
    kept = await buckets.uploader.find("audio/1.")
    assert kept is not None
    assert kept.recording == RECORDING
    del stored.metadata[written("waveform")]
    kept = await buckets.uploader.find("audio/1.")
    assert kept is not None
    assert kept.recording is None


async def test_old_uploads_are_aborted_where_the_store_lists_them(store: StrictS3, buckets: Buckets) -> None:
    async with plain_client(store) as client:
        await client.create_multipart_upload(Bucket=BUCKET, Key="inbox/1")
        await client.create_multipart_upload(Bucket=BUCKET, Key="references/1/a")
    soon = datetime.now(UTC) + timedelta(minutes=1)
    store.lists_uploads = False
    assert await buckets.gateway.abort_unfinished("inbox/", soon) == 0
    store.lists_uploads = True
    assert await buckets.gateway.abort_unfinished("inbox/", soon) == 1
    assert [upload.key for upload in store.uploads.values()] == ["references/1/a"]


def plain_client(store: StrictS3) -> Any:
    """A client as it comes: what the services' clients do not send, it sends."""
    session = aioboto3.Session(aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1], region_name=REGION)
    return session.client("s3", endpoint_url=store.url)


@pytest.mark.parametrize(
    ("strictness", "code"),
    [
        ({"wants_content_md5": True}, "MissingContentMD5"),
        ({"knows_checksums": False}, "NotImplemented"),
        ({"batch_refusal": (405, "")}, "405"),
    ],
)
async def test_the_strict_store_refuses_what_a_plain_client_sends(
    store: StrictS3, strictness: dict[str, Any], code: str
) -> None:
    for name, value in strictness.items():
        setattr(store, name, value)
    async with plain_client(store) as client:
        with pytest.raises(ClientError) as refused:
            await client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "a"}]})
        assert refused.value.response["Error"]["Code"] == code


async def test_the_strict_store_refuses_a_wrong_key(store: StrictS3) -> None:
    given = S3Settings.model_validate({**settings(store), "aws_secret_access_key": "wrong"})
    async with gateway_storage.Bucket(given) as bucket:
        with pytest.raises(BackEndError, match="SignatureDoesNotMatch"):
            await bucket.write("a", chunks(CONTENT))
