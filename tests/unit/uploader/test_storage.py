"""The bucket as the uploader uses it, by what a store may answer: what is not done is never taken for done."""

import errno
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from chassis.errors import AwayError, BackEndError, ObjectMissingError
from chassis.objects import Connection, Objects
from chassis.s3 import DeletionError
from chassis.settings import S3Settings
from tests.unit import stories
from tests.unit.services import S3 as SETTINGS
from uploader import storage as storage_module
from uploader.storage import MEMORY_BYTES, Bucket
from uploader.uploads import Fetched, StoredRecording

RECORDING = StoredRecording(stories.AUDIO, stories.SHA256, 4, "audio/wav")
LARGE = Fetched("inbox/a", io.BytesIO(), MEMORY_BYTES + 1, stories.SHA256)
SMALL = Fetched("inbox/a", io.BytesIO(b"data"), 4, stories.SHA256)


class Body:
    """The body of an answer; it breaks off after its first chunk when told."""

    def __init__(self, content: bytes, error: Exception | None = None) -> None:
        self._content = io.BytesIO(content)
        self._error = error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def iter_chunks(self, size: int) -> AsyncIterator[bytes]:
        while chunk := self._content.read(size):
            yield chunk
            if self._error:
                raise self._error


class S3:
    """A client whose calls answer as they were made to, with a list's entries one after the other."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.deleted: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(**_: Any) -> Any:
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer.pop(0) if isinstance(answer, list) else answer

        return call

    async def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto's names
        assert Bucket
        self.deleted.append([found["Key"] for found in Delete["Objects"]])
        answer = self.answers.get("delete_objects", {})
        if isinstance(answer, Exception):
            raise answer
        answered: dict[str, Any] = answer
        return answered


Opening = Callable[[S3], Awaitable[Bucket]]


@pytest.fixture
async def storage() -> AsyncIterator[Opening]:
    """Gives the bucket over a client; it is closed at the end."""
    settings = S3Settings.model_validate({name.lower(): value for name, value in SETTINGS.items()})
    async with AsyncExitStack() as stack:

        async def opened(s3: S3) -> Bucket:
            @asynccontextmanager
            async def connect(*_: object, **__: object) -> AsyncIterator[Connection]:
                yield Connection(s3, Objects(s3, settings.s3_bucket_name))

            return await stack.enter_async_context(Bucket(settings, connect))

        yield opened


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")


@pytest.mark.parametrize("code", ["NoSuchKey", "404", "NotFound"])
async def test_an_object_that_is_not_there_is_missing(storage: Opening, code: str) -> None:
    missing = await storage(S3(get_object=refusal(code, 404), copy_object=refusal(code, 404)))
    with pytest.raises(ObjectMissingError):
        await missing.fetch("inbox/a")
    with pytest.raises(ObjectMissingError):
        await missing.keep(LARGE, "audio/a.wav", RECORDING)


async def test_not_found_is_no_answer_to_what_asks_for_no_object(storage: Opening) -> None:
    """As a proxy may say: the recording is there, and must not be rejected."""
    misled = await storage(S3(put_object=refusal("404", 404), list_objects_v2=refusal("404", 404)))
    for asked in (misled.keep(SMALL, "audio/a.wav", RECORDING), misled.find("audio/a."), misled.remove_all("inbox/a")):
        with pytest.raises(BackEndError):
            await asked


@pytest.mark.parametrize(
    ("code", "status"),
    [("InternalError", 500), ("InsufficientStorage", 507), ("SlowDown", 503)],
)
async def test_a_store_that_is_full_or_broken_is_waited_for(storage: Opening, code: str, status: int) -> None:
    refused = refusal(code, status)
    away = await storage(S3(get_object=refused, copy_object=refused, put_object=refused))
    with pytest.raises(AwayError):
        await away.fetch("inbox/a")
    for fetched in (LARGE, SMALL):
        with pytest.raises(AwayError):
            await away.keep(fetched, "audio/a.wav", RECORDING)


@pytest.mark.parametrize(("code", "status"), [("NoSuchBucket", 404), ("AccessDenied", 403)])
async def test_any_other_refusal_of_the_store_is_for_another_try(storage: Opening, code: str, status: int) -> None:
    refusing = refusal(code, status)
    wrong = await storage(S3(get_object=refusing, copy_object=refusing, put_object=refusing))
    keeping = (wrong.keep(fetched, "audio/a.wav", RECORDING) for fetched in (LARGE, SMALL))
    for refused in (wrong.fetch("inbox/a"), *keeping):
        with pytest.raises(BackEndError) as told:
            await refused
        assert not isinstance(told.value, AwayError)


async def test_a_request_that_can_never_be_made_is_not_waited_for(storage: Opening) -> None:
    with pytest.raises(BackEndError, match="ParamValidationError"):
        await (await storage(S3(get_object=ParamValidationError(report="no key")))).fetch("")


async def test_an_answer_that_breaks_off_is_no_recording(storage: Opening) -> None:
    body = Body(b"x" * (2 * MEMORY_BYTES), ConnectionResetError())
    with pytest.raises(AwayError):
        await (await storage(S3(get_object={"ContentLength": 2 * MEMORY_BYTES, "Body": body}))).fetch("inbox/a")


async def test_what_was_hashed_in_memory_cannot_be_changed_by_who_decodes_it(storage: Opening) -> None:
    answer = {"ContentLength": 4, "Body": Body(b"data")}
    fetched = await (await storage(S3(get_object=answer))).fetch("inbox/a")
    with fetched.content as content:
        reopened = os.open(f"/proc/self/fd/{content.fileno()}", os.O_RDWR)
        assert os.read(reopened, 5) == b"data"
        with pytest.raises(PermissionError):
            os.pwrite(reopened, b"d", 0)
        os.close(reopened)


async def test_a_full_disk_here_is_no_fault_of_the_recording(
    storage: Opening,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage_module, "TemporaryFile", lambda: Path("/dev/full").open("w+b"))  # noqa: SIM115 - closed by who asks for it
    body = Body(b"x" * (MEMORY_BYTES + 1))
    with pytest.raises(OSError, match="No space left") as refused:
        await (await storage(S3(get_object={"ContentLength": MEMORY_BYTES + 1, "Body": body}))).fetch("inbox/a")
    assert refused.value.errno == errno.ENOSPC


async def test_a_fetch_that_fails_lets_go_of_its_temporary_file(
    storage: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NamedTemporaryFile() as temporary:
        monkeypatch.setattr(storage_module, "TemporaryFile", lambda: temporary.file)
        body = Body(b"x" * (2 * MEMORY_BYTES), ConnectionResetError())
        with pytest.raises(AwayError):
            await (await storage(S3(get_object={"ContentLength": 2 * MEMORY_BYTES, "Body": body}))).fetch("inbox/a")
        assert temporary.file.closed


async def test_what_the_store_says_it_did_not_delete_is_for_another_try(storage: Opening) -> None:
    listed = {"Contents": [{"Key": "inbox/a"}]}
    refusing = S3(list_objects_v2=listed, delete_objects={"Errors": [{"Key": "inbox/a", "Code": "InternalError"}]})
    with pytest.raises(DeletionError, match="InternalError"):
        await (await storage(refusing)).remove_all("inbox/a")


async def test_every_page_is_removed_and_nothing_to_remove_is_no_call(storage: Opening) -> None:
    pages = [{"Contents": [{"Key": "inbox/a"}, {"Key": "inbox/a.1"}]}, {"Contents": [{"Key": "inbox/a.2"}]}, {}]
    s3 = S3(list_objects_v2=pages)
    await (await storage(s3)).remove_all("inbox/a")
    assert s3.deleted == [["inbox/a", "inbox/a.1"], ["inbox/a.2"]]


@pytest.mark.parametrize(("code", "status"), [("404", 404), ("NotFound", 404), ("NoSuchBucket", 404)])
async def test_a_listing_that_is_not_found_is_not_an_empty_one(storage: Opening, code: str, status: int) -> None:
    lost = await storage(S3(list_objects_v2=refusal(code, status)))
    with pytest.raises(BackEndError, match=code):
        await lost.remove_all("inbox/a")


async def test_inbox_objects_are_discarded_once_the_store_is_back(storage: Opening) -> None:
    s3 = S3(delete_objects=ConnectionError("down"))
    opened = await storage(s3)
    opened.discard("inbox/a")
    await opened.delete_discarded()
    s3.answers["delete_objects"] = {}
    opened.discard("inbox/b")
    await opened.delete_discarded()
    await opened.delete_discarded()
    assert s3.deleted == [["inbox/a"], ["inbox/a", "inbox/b"]]


async def test_what_waits_to_be_discarded_is_bounded(storage: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "DISCARDED_KEYS", 3)
    s3 = S3()
    opened = await storage(s3)
    for number in range(5):
        opened.discard(f"inbox/{number}")
    await opened.delete_discarded()
    assert s3.deleted == [["inbox/0", "inbox/1", "inbox/2"]]


async def test_a_recording_whose_description_was_lost_is_found_without_it(storage: Opening) -> None:
    listed = {"Contents": [{"Key": "audio/a.wav"}]}
    head = {"Metadata": {"mtime": "1"}, "ContentLength": 4, "ContentType": "audio/wav"}
    kept = await (await storage(S3(list_objects_v2=listed, head_object=head))).find("audio/a.")
    assert kept is not None
    assert (kept.key, kept.url, kept.recording) == ("audio/a.wav", "s3://sori/audio/a.wav", None)
    assert await (await storage(S3(list_objects_v2={}))).find("audio/a.") is None
