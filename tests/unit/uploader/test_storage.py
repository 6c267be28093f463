"""The bucket as the uploader uses it, by what a store may answer: what is not done is never taken for done."""

import errno
import io
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from types import SimpleNamespace
from typing import Any, Self

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from tests.unit import stories
from tests.unit.services import SERVICES
from uploader import storage as storage_module
from uploader.errors import AwayError, DeletionError, ObjectMissingError
from uploader.storage import MEMORY_BYTES, Storage
from uploader.uploads import StoredRecording

RECORDING = StoredRecording(stories.AUDIO, stories.SHA256, 4, "audio/wav")


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
    """A client whose calls answer as they were made to."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers
        self.deleted: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(**_: Any) -> Any:
            answer = self._answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def get_paginator(self, _: str) -> Any:
        async def paginate(**_: Any) -> AsyncIterator[dict[str, Any]]:
            for page in self._answers["pages"]:
                yield page

        return SimpleNamespace(paginate=paginate)

    async def delete_objects(self, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:  # noqa: N803 - boto's names
        assert Bucket
        self.deleted.append([found["Key"] for found in Delete["Objects"]])
        answer = self._answers.get("delete_objects", {})
        if isinstance(answer, Exception):
            raise answer
        answered: dict[str, Any] = answer
        return answered


def storage(s3: S3) -> Storage:
    (uploader,) = [service for service in SERVICES if service.name == "uploader"]
    opened = Storage(uploader.settings.Settings(**{name.lower(): value for name, value in uploader.required.items()}))
    opened._s3 = s3
    return opened


def refusal(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Operation")


@pytest.mark.parametrize("code", ["NoSuchKey", "404", "NotFound"])
async def test_an_object_that_is_not_there_is_missing(code: str) -> None:
    missing = storage(S3(get_object=refusal(code, 404), copy_object=refusal(code, 404)))
    with pytest.raises(ObjectMissingError):
        await missing.fetch("inbox/a")
    with pytest.raises(ObjectMissingError):
        await missing.keep("inbox/a", "audio/a.wav", RECORDING)


@pytest.mark.parametrize(
    ("code", "status"),
    [("InternalError", 500), ("InsufficientStorage", 507), ("SlowDown", 503)],
)
async def test_a_store_that_is_full_or_broken_is_waited_for(code: str, status: int) -> None:
    away = storage(S3(get_object=refusal(code, status), copy_object=refusal(code, status)))
    with pytest.raises(AwayError):
        await away.fetch("inbox/a")
    with pytest.raises(AwayError):
        await away.keep("inbox/a", "audio/a.wav", RECORDING)


@pytest.mark.parametrize(("code", "status"), [("NoSuchBucket", 404), ("AccessDenied", 403)])
async def test_any_other_refusal_of_the_store_is_for_another_try(code: str, status: int) -> None:
    wrong = storage(S3(get_object=refusal(code, status), copy_object=refusal(code, status)))
    with pytest.raises(ClientError):
        await wrong.fetch("inbox/a")
    with pytest.raises(ClientError):
        await wrong.keep("inbox/a", "audio/a.wav", RECORDING)


async def test_a_request_that_can_never_be_made_is_not_waited_for() -> None:
    with pytest.raises(ParamValidationError):
        await storage(S3(get_object=ParamValidationError(report="no key"))).fetch("")


async def test_an_answer_that_breaks_off_is_no_recording() -> None:
    body = Body(b"x" * (2 * MEMORY_BYTES), ConnectionResetError())
    with pytest.raises(AwayError):
        await storage(S3(get_object={"ContentLength": 2 * MEMORY_BYTES, "Body": body})).fetch("inbox/a")


async def test_a_full_disk_here_is_no_fault_of_the_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storage_module, "TemporaryFile", lambda: Path("/dev/full").open("w+b"))  # noqa: SIM115 - closed by who asks for it
    body = Body(b"x" * (MEMORY_BYTES + 1))
    with pytest.raises(OSError, match="No space left") as refused:
        await storage(S3(get_object={"ContentLength": MEMORY_BYTES + 1, "Body": body})).fetch("inbox/a")
    assert refused.value.errno == errno.ENOSPC


async def test_a_fetch_that_fails_lets_go_of_its_temporary_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with NamedTemporaryFile() as temporary:
        monkeypatch.setattr(storage_module, "TemporaryFile", lambda: temporary.file)
        body = Body(b"x" * (2 * MEMORY_BYTES), ConnectionResetError())
        with pytest.raises(AwayError):
            await storage(S3(get_object={"ContentLength": 2 * MEMORY_BYTES, "Body": body})).fetch("inbox/a")
        assert temporary.file.closed


async def test_what_the_store_says_it_did_not_delete_is_for_another_try() -> None:
    pages = [{"Contents": [{"Key": "inbox/a"}]}]
    refusing = S3(pages=pages, delete_objects={"Errors": [{"Key": "inbox/a", "Code": "InternalError"}]})
    with pytest.raises(DeletionError, match="InternalError"):
        await storage(refusing).remove_all("inbox/a")


async def test_every_page_is_removed_and_nothing_to_remove_is_no_call() -> None:
    s3 = S3(pages=[{"Contents": [{"Key": "inbox/a"}, {"Key": "inbox/a.1"}]}, {"Contents": [{"Key": "inbox/a.2"}]}, {}])
    await storage(s3).remove_all("inbox/a")
    assert s3.deleted == [["inbox/a", "inbox/a.1"], ["inbox/a.2"]]


async def test_inbox_objects_are_discarded_once_the_store_is_back() -> None:
    s3 = S3(delete_objects=ConnectionError("down"))
    opened = storage(s3)
    opened.discard("inbox/a")
    await opened._delete_discarded()
    s3._answers["delete_objects"] = {}
    opened.discard("inbox/b")
    await opened._delete_discarded()
    await opened._delete_discarded()
    assert s3.deleted == [["inbox/a"], ["inbox/a", "inbox/b"]]


async def test_what_waits_to_be_discarded_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "DISCARDED_KEYS", 3)
    opened = storage(S3())
    for number in range(5):
        opened.discard(f"inbox/{number}")
    await opened._delete_discarded()
    assert opened._s3.deleted == [["inbox/0", "inbox/1", "inbox/2"]]


async def test_a_recording_whose_description_was_lost_is_found_without_it() -> None:
    listed = {"Contents": [{"Key": "audio/a.wav"}]}
    head = {"Metadata": {"mtime": "1"}, "ContentLength": 4, "ContentType": "audio/wav"}
    kept = await storage(S3(list_objects_v2=listed, head_object=head)).find("audio/a.")
    assert kept is not None
    assert (kept.key, kept.url, kept.recording) == ("audio/a.wav", "s3://sori/audio/a.wav", None)
    assert await storage(S3(list_objects_v2={})).find("audio/a.") is None
