"""What a request sends: told by its headers alone, and read as a form or as the file itself."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
from fastapi import Request
from starlette.types import Message

from contracts.events import JsonObject
from gateway.web import pace
from gateway.web.bodies import FileBody, arriving_file
from gateway.web.forms import FileForm
from gateway.web.problems import ProblemError

MAX_BYTES = 100


def request(headers: dict[str, str], chunks: Iterable[bytes] = (), query: str = "") -> Request:
    sent = [(chunk, True) for chunk in chunks]
    waiting = iter([*sent, (b"", False)])

    async def receive() -> Message:
        body, more = next(waiting)
        return {"type": "http.request", "body": body, "more_body": more}

    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": encoded, "query_string": query.encode()}, receive)


def read(headers: dict[str, str], *chunks: bytes) -> tuple[bytes, str | None]:
    async def reading() -> tuple[bytes, str | None]:
        file = arriving_file(request(headers, chunks), MAX_BYTES, reads_metadata=True)
        return b"".join([chunk async for chunk in file.chunks()]), file.filename

    return asyncio.run(reading())


@pytest.mark.parametrize(
    "content_type",
    [
        "audio/wav",
        "Audio/X-WAV",
        "audio/webm;codecs=opus",
        "audio/mp4; codecs=mp4a.40.2",
        "video/webm",
        "video/mp4",
        "application/ogg",
        "application/octet-stream",
    ],
)
def test_a_body_of_audio_is_the_file(content_type: str) -> None:
    assert read({"Content-Type": content_type}, b"RI", b"FF") == (b"RIFF", None)


def test_a_header_names_the_file() -> None:
    named = {"Content-Type": "audio/wav", "Content-Disposition": "attachment; filename*=utf-8''%EB%85%B9%EC%9D%8C.wav"}
    assert read(named, b"RIFF") == (b"RIFF", "녹음.wav")


@pytest.mark.parametrize("content_type", ["audio/wav", "multipart/form-data; boundary=x"])
def test_an_address_may_have_the_metadata(content_type: str) -> None:
    def metadata(query: str) -> JsonObject | None:
        return arriving_file(
            request({"Content-Type": content_type}, query=query), MAX_BYTES, reads_metadata=True
        ).metadata

    assert metadata("metadata=%7B%22user%22:7,%22%EA%B0%80%22:%22a+b%22%7D&x=1") == {"user": 7, "가": "a b"}
    assert metadata("metadata=") is None
    assert metadata("") is None
    for query in ("metadata=7", "metadata={}&metadata={}", "metadata=%FF", 'metadata={"a":NaN}'):
        with pytest.raises(ProblemError) as refused:
            metadata(query)
        assert (refused.value.kind.code, refused.value.close) == ("metadata_invalid", True)


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/json", "application/x-www-form-urlencoded", "image/png", "audio"]
)
def test_a_body_of_anything_else_is_no_file(content_type: str) -> None:
    with pytest.raises(ProblemError) as refused:
        read({"Content-Type": content_type}, b"RIFF")
    assert (refused.value.kind.code, refused.value.close) == ("file_missing", True)


def test_a_form_is_read_as_one() -> None:
    assert isinstance(
        arriving_file(request({"Content-Type": "multipart/form-data; boundary=x"}), MAX_BYTES, reads_metadata=True),
        FileForm,
    )


@pytest.mark.parametrize("content_type", ["audio/wav", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "deflate", "gzip, identity", "x-unknown"])
def test_a_compressed_body_is_refused_before_it_is_read(content_type: str, encoding: str) -> None:
    with pytest.raises(ProblemError) as refused:
        arriving_file(
            request({"Content-Type": content_type, "Content-Encoding": encoding}), MAX_BYTES, reads_metadata=True
        )
    assert (refused.value.kind.status, refused.value.kind.code) == (415, "encoding_unsupported")
    assert refused.value.close
    assert refused.value.headers == {"Accept-Encoding": "identity"}


def test_a_client_that_stops_in_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "IDLE_SECONDS", 0.01)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"RIFF"
        await asyncio.Event().wait()

    async def reading() -> None:
        async for _ in FileBody("", stalled(), MAX_BYTES).chunks():
            pass

    with pytest.raises(ProblemError) as refused:
        asyncio.run(reading())
    assert (refused.value.kind.code, refused.value.close) == ("upload_too_slow", True)


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_a_body_that_says_it_is_not_compressed_is_taken(encoding: str) -> None:
    assert read({"Content-Type": "audio/wav", "Content-Encoding": encoding}, b"RIFF")[0] == b"RIFF"


@pytest.mark.parametrize(
    ("chunks", "code", "closes"),
    [([], "file_empty", False), ([b"x" * 60, b"x" * 41], "upload_too_large", True)],
    ids=["nothing", "too much"],
)
def test_a_body_has_the_limits_of_a_form(chunks: list[bytes], code: str, closes: bool) -> None:
    with pytest.raises(ProblemError) as refused:
        read({"Content-Type": "audio/wav"}, *chunks)
    assert (refused.value.kind.code, refused.value.close) == (code, closes)


def test_a_body_of_just_the_limit_is_taken() -> None:
    assert read({"Content-Type": "audio/wav"}, bytes(MAX_BYTES))[0] == bytes(MAX_BYTES)
    assert isinstance(arriving_file(request({"Content-Type": "audio/wav"}), MAX_BYTES, reads_metadata=True), FileBody)


def test_a_form_in_base64_is_not_judged_by_its_encoded_length() -> None:
    most = 300 * 1024 * 1024
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(most * 4 * 77 // (3 * 76))}
    assert isinstance(arriving_file(request(headers), most, reads_metadata=True), FileForm)
    for content_type, length in (("multipart/form-data; boundary=x", most * 3 // 2), ("audio/wav", most + 1)):
        told = {"Content-Type": content_type, "Content-Length": str(length)}
        with pytest.raises(ProblemError) as refused:
            arriving_file(request(told), most, reads_metadata=True)
        assert refused.value.kind.code == "upload_too_large"
