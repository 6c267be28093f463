"""Uploads that are refused, or that never end: told apart at once, explained, and nothing of them stays behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import MAX_UPLOAD_BYTES
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.bucket import Bucket
from tests.support.raw_http import BOUNDARY, RawConnection, form, part, raw_connection
from tests.support.recordings import wav, wav_blocks
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.waiting import until, until_true

FORM = f"multipart/form-data; boundary={BOUNDARY}"
MIB = 1024 * 1024
BAD_FORMS: dict[str, tuple[str, bytes, int, str]] = {
    "no file field": (FORM, form(part(b"hello", name="note", filename=None)), 422, "file_missing"),
    "no field at all": (FORM, form(), 422, "file_missing"),
    "a file in another field": (FORM, form(part(RECORDING, name="audio")), 422, "file_missing"),
    "another kind of body": ("application/json", b'{"file": "recording.wav"}', 422, "file_missing"),
    "a body of text": ("text/plain", RECORDING, 422, "file_missing"),
    "a body of nothing": ("audio/wav", b"", 422, "file_empty"),
    "two files": (FORM, form(part(RECORDING), part(RECORDING)), 422, "too_many_files"),
    "a large file beside it": (FORM, form(part(RECORDING), part(bytes(1_100_000), name="more")), 400, "form_malformed"),
    "a part in an encoding": (
        FORM,
        form(part(RECORDING).replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: x-uuencode\r\n\r\n", 1)),
        415,
        "encoding_unsupported",
    ),
    "an empty file": (FORM, form(part(b"")), 422, "file_empty"),
    "no file chosen": (FORM, form(part(b"", filename="")), 422, "file_empty"),
    "no end": (FORM, part(RECORDING), 400, "form_malformed"),
    "cut inside the file": (FORM, part(RECORDING)[:-100], 400, "form_malformed"),
    "another boundary": ("multipart/form-data; boundary=other", form(part(RECORDING)), 400, "form_malformed"),
    "no boundary": ("multipart/form-data", form(part(RECORDING)), 400, "form_malformed"),
    "garbage": (FORM, b"this is no form" * 100, 400, "form_malformed"),
    "no body": (FORM, b"", 400, "form_malformed"),
    "a broken header": (FORM, f"--{BOUNDARY}\r\nno colon here\r\n\r\nx\r\n".encode(), 400, "form_malformed"),
}


@pytest.fixture
async def token_id(jobs: Any, bucket: Bucket) -> AsyncIterator[str]:
    """A token for uploads that must leave nothing behind: no job, no object, no open multipart upload."""
    token_id = new_token()
    kept, unfinished = await bucket.keys("audio/"), await bucket.unfinished()
    yield token_id
    assert not await jobs.count_documents({"token_id": token_id})
    await bucket.until_inbox_is_empty(besides=unfinished)
    assert await bucket.keys("audio/") == kept


@pytest.mark.parametrize("name", BAD_FORMS)
async def test_a_form_without_exactly_one_whole_file_is_refused(
    sori: Sori, client: httpx.AsyncClient, token_id: str, name: str
) -> None:
    content_type, body, status, code = BAD_FORMS[name]
    for language, header in LANGUAGES.items():
        headers = {"Content-Type": content_type, "Accept-Language": header}
        url = f"{sori.url}/tokens/{token_id}/upload-audio"
        assert_problem(await client.post(url, content=body, headers=headers), status, code, language)


async def test_korean_is_spoken_to_who_names_no_language(sori: Sori, client: httpx.AsyncClient, token_id: str) -> None:
    for named in ("", "fr", "de-DE,*;q=0.5"):
        headers = {"Content-Type": FORM, "Accept-Language": named}
        answer = await client.post(f"{sori.url}/tokens/{token_id}/upload-audio", content=form(), headers=headers)
        assert_problem(answer, 422, "file_missing", "ko")


BEGINNINGS: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "no form": ({"Content-Type": "application/json"}, b"", 422, "file_missing"),
    "a compressed form": ({"Content-Encoding": "gzip"}, b"", 415, "encoding_unsupported"),
    "a compressed file": ({"Content-Type": "audio/wav", "Content-Encoding": "br"}, b"", 415, "encoding_unsupported"),
    "no boundary": ({"Content-Type": "multipart/form-data"}, b"", 400, "form_malformed"),
    "garbage": ({}, b"this is no form" * 100, 400, "form_malformed"),
    "two files": ({}, part(RECORDING) + part(RECORDING), 422, "too_many_files"),
}


@pytest.mark.parametrize("name", BEGINNINGS)
async def test_what_is_wrong_from_the_beginning_is_refused_before_the_rest_has_come(
    stack: Stack, token_id: str, name: str
) -> None:
    headers, beginning, status, code = BEGINNINGS[name]
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(50 * MIB), **headers})
        await connection.send(beginning)
        assert_problem(await connection.answer(), status, code)
        await connection.until_closed()


async def test_too_much_by_content_length_is_refused_before_any_of_it_has_come(stack: Stack, token_id: str) -> None:
    for language, header in LANGUAGES.items():
        async with raw_connection(stack.url) as connection:
            await connection.begin_upload(token_id, {"Content-Length": str(10**11), "Accept-Language": header})
            assert_problem(await connection.answer(), 413, "upload_too_large", language)
            await connection.until_closed()


async def test_a_client_that_goes_on_sending_too_much_still_reads_why(stack: Stack, token_id: str) -> None:
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(10**11)})
        sending = asyncio.create_task(send_for_ever(connection, bytes(MIB)))
        try:
            assert_problem(await connection.answer(), 413, "upload_too_large")
            await connection.until_closed()
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def test_curl_sees_why_its_file_is_too_large(stack: Stack, token_id: str, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    with large.open("wb") as file:
        file.truncate(MAX_UPLOAD_BYTES + MIB)
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--max-time", "60", "--write-out", "\n%{http_code}", "-F", f"file=@{large}"),
        f"{stack.url}/tokens/{token_id}/upload-audio",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    body, status = out.decode().rsplit("\n", 1)
    assert status == "413"
    assert '"upload_too_large"' in body


async def test_too_much_without_a_length_is_refused_when_the_limit_is_passed(
    stack: Stack, token_id: str, bucket: Bucket
) -> None:
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(token_id, {"Transfer-Encoding": "chunked"})
        await connection.send_chunk(part(b"")[:-2])
        for block in wav_blocks(MAX_UPLOAD_BYTES - MIB, seed=5):
            await connection.send_chunk(block)
        await until(bucket.open_uploads, "a multipart upload under way")
        # Up to here everything is in order: a file of the limit itself would be taken.
        for _ in range(2):
            await connection.send_chunk(bytes(MIB))
        assert_problem(await connection.answer(), 413, "upload_too_large")
        await connection.until_closed()


async def test_one_byte_over_the_limit_is_refused_although_its_length_was_told(
    stack: Stack, client: httpx.AsyncClient, token_id: str
) -> None:
    content = chain_form(MAX_UPLOAD_BYTES + 1)
    headers = {"Content-Type": FORM, "Content-Length": str(len(form(part(b""))) + MAX_UPLOAD_BYTES + 1)}
    answer = await client.post(f"{stack.url}/tokens/{token_id}/upload-audio", content=content, headers=headers)
    assert_problem(answer, 413, "upload_too_large")


async def test_a_file_of_exactly_the_limit_is_taken(stack: Stack, sori: Sori, client: httpx.AsyncClient) -> None:
    # Eight channels at a high rate: large, and yet not too long.
    content = chain_form(MAX_UPLOAD_BYTES, rate=192_000, channels=8)
    url = f"{stack.url}/tokens/{new_token()}/upload-audio"
    answer = await client.post(url, content=content, headers={"Content-Type": FORM})
    assert answer.status_code == 202, answer.text
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("end", ["reset", "closed"])
async def test_a_client_that_goes_away_in_mid_upload_leaves_nothing_behind(
    stack: Stack, token_id: str, bucket: Bucket, end: str
) -> None:
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(40 * MIB)})
        await connection.send(part(wav(60, seed=6, rate=96_000))[:-2])
        # More than a part: the upload has begun in S3 too.
        await until(bucket.open_uploads, "a multipart upload under way")
        if end == "reset":
            connection.abort()
    await until(gone(bucket), "the abort of the multipart upload")


@pytest.mark.parametrize("end", ["reset", "closed"])
async def test_a_client_that_goes_away_early_leaves_nothing_behind(stack: Stack, token_id: str, end: str) -> None:
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(5000)})
        await connection.send(part(RECORDING[:1000])[:-2])
        if end == "reset":
            connection.abort()
    await until_true(lambda: ended(stack, token_id), "the end of the upload")


async def test_a_client_that_sends_slowly_but_steadily_is_served(stack: Stack, sori: Sori) -> None:
    body = form(part(RECORDING))
    async with raw_connection(stack.url) as connection:
        await connection.begin_upload(new_token(), {"Content-Length": str(len(body))})
        for start in range(0, len(body), 997):
            await connection.send(body[start : start + 997])
        answer = await connection.answer()
    assert answer.status == 202
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("token_id", ["%01", "%20", "%0d%0aX-Evil:%201", "x" * 201, "%E2%80%AEa", "a%E2%80%8Bb"])
async def test_a_token_id_that_cannot_be_is_refused(sori: Sori, client: httpx.AsyncClient, token_id: str) -> None:
    for language, header in LANGUAGES.items():
        headers = {"Content-Type": FORM, "Accept-Language": header}
        url = f"{sori.url}/tokens/{token_id}/upload-audio"
        answer = await client.post(url, content=form(part(RECORDING)), headers=headers)
        assert_problem(answer, 422, "token_id_invalid", language)


@pytest.mark.parametrize("token_id", ["한글 토큰", "🎤", "a%2Fb?c#d", "x" * 200, "..", "$where", "1"])
async def test_any_other_token_id_is_an_opaque_text(sori: Sori, token_id: str) -> None:
    quoted = "".join(f"%{byte:02X}" for byte in token_id.encode())
    job_id = await sori.job(RECORDING, quoted)
    state = await sori.ended(job_id)
    assert (state["token_id"], state["result"]["video_id"]) == (token_id, token_id)


async def send_for_ever(connection: RawConnection, content: bytes) -> None:
    try:
        while True:
            await connection.send(content)
    except ConnectionError:
        return


async def chain_form(size_bytes: int, *, rate: int = 48_000, channels: int = 2) -> AsyncIterator[bytes]:
    """A form around a WAV of exactly this size, made while it is sent."""
    whole = part(b"")
    yield whole[:-2]
    for block in wav_blocks(size_bytes, seed=7, rate=rate, channels=channels):
        yield block
    yield whole[-2:] + form()


def gone(bucket: Bucket) -> Callable[[], Any]:
    async def look() -> bool:
        return not await bucket.open_uploads()

    return look


def ended(stack: Stack, token_id: str) -> bool:
    """Whether the edge has done with the upload; it may not have come as far as a gateway."""
    return any(token_id in line for line in stack.log("edge").read_text(encoding="utf-8").splitlines())
