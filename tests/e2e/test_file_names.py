"""What clients call their files: any name is taken, and none becomes part of a key."""

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from contracts.names import is_plain
from local_stack.stack import Stack
from tests.support.bucket import Bucket
from tests.support.raw_http import BOUNDARY, Answer, form, part, raw_connection
from tests.support.sori import RECORDING, Sori, new_token

NAMES = {
    "a path upwards": "../../../../etc/passwd",
    "an absolute path": "/etc/cron.d/evil.wav",
    "a Windows path": "C:\\Users\\me\\녹음.wav",
    "an encoded quote": "%22quoted%22.wav",
    "an encoded path": "..%2f..%2fevil.wav",
    "only dots": "..",
    "control characters": "a\x01b\x07c\x1bd\x7fe\tf.wav",
    "emoji": "🎤 my 🔥 take 👩‍👩‍👧.wav",
    "Korean": "안녕하세요 녹음.wav",
    "right to left": "\u202egnp.wav",
    "10,000 characters": "a" * 9_996 + ".wav",
    "10,000 Korean characters": "가" * 10_000,
    "10,000 emoji": "🎤" * 10_000,
    "query and fragment": "a?b=c&d#e.wav",
    "a template": "${HOME} {{7*7}} %s %n <script>.wav",
    "spaces": "   ",
    "a key of its own": "inbox/other.wav",
}


async def upload_named(url: str, token_id: str, disposition_name: str) -> Answer:
    """Send a file with this name as it is, which a tidy client would have escaped."""
    return await upload_body(url, token_id, form(part(RECORDING, filename=disposition_name)))


async def upload_body(url: str, token_id: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    """Send these bytes, as a form unless the headers say otherwise."""
    async with raw_connection(url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(len(body)), **(headers or {})})
        await connection.send(body)
        return await connection.answer()


@pytest.mark.parametrize("name", NAMES)
async def test_any_file_name_is_accepted_and_never_part_of_a_key(
    stack: Stack, sori: Sori, bucket: Bucket, jobs: Any, name: str
) -> None:
    # Jobs of earlier tests may still be on their way into the bucket: what they add is not this test's.
    await bucket.until_inbox_is_empty()
    others = await bucket.keys()
    answer = await upload_named(stack.url, new_token(), NAMES[name])
    assert answer.status == 202, answer.body
    job_id = answer.json()["job_id"]
    state = await sori.ended(job_id)
    assert state["status"] == "completed", state
    assert state["s3_url"].endswith(f"/audio/{job_id}.wav")
    await bucket.until_inbox_is_empty()
    assert await bucket.keys() - others == {f"audio/{job_id}.wav"}
    kept = (await jobs.find_one({"_id": job_id}))["filename"]
    assert kept is None or (0 < len(kept) <= 255 and is_plain(kept))


async def shown(sori: Sori, answer: Answer) -> str | None:
    """What the job's file is called, once the job is completed."""
    assert answer.status == 202, answer.body
    job_id = answer.json()["job_id"]
    state = await sori.ended(job_id)
    assert state["status"] == "completed", state
    name: str | None = (await sori.client.get(f"{sori.url}/jobs/{job_id}")).json().get("filename")
    return name


async def test_a_file_name_that_a_client_escaped_is_shown_as_it_was(sori: Sori) -> None:
    job_id = await sori.job(filename='line\r\nbreak "quoted" 녹음.wav')
    assert (await sori.ended(job_id))["status"] == "completed"
    found = (await sori.client.get(f"{sori.url}/jobs/{job_id}")).json()
    assert found["filename"] == 'linebreak "quoted" 녹음.wav'


WAYS: dict[str, tuple[str, str]] = {
    "extended alone": ("name=\"file\"; filename*=UTF-8''%EB%85%B9%EC%9D%8C.wav", "녹음.wav"),
    "extended, with a path": ("name=\"file\"; filename*=UTF-8''%EB%85%B9%EC%9D%8C%2F..%2Fevil.wav", "evil.wav"),
    "extended beside encoded words": (
        "name=file; filename=\"=?utf-8?B?7Jik66WYLndhdg==?=\"; filename*=utf-8''%EB%85%B9%EC%9D%8C.wav",
        "녹음.wav",
    ),
    "encoded words": ('name="file"; filename="=?utf-8?B?64W57J2MLndhdg==?="', "녹음.wav"),
    "a Windows path": ('name="file"; filename="C:\\fakepath\\녹음.wav"', "녹음.wav"),
    "folded": ('name="file";\r\n filename="녹음.wav"', "녹음.wav"),
}


@pytest.mark.parametrize(("disposition", "name"), WAYS.values(), ids=WAYS)
async def test_a_name_is_shown_as_it_was_meant(stack: Stack, sori: Sori, disposition: str, name: str) -> None:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    body = head.encode() + RECORDING + b"\r\n" + form()
    assert await shown(sori, await upload_body(stack.url, new_token(), body)) == name


BASE64_HEAD = (
    f"--{BOUNDARY}\r\nContent-Type: audio/x-wav\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n"
    'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
)
FORMS: dict[str, bytes] = {
    "a part of JSON with a file name": form(part(b"{}", name="info", filename="blob"), part(RECORDING)),
    "a file in another field": form(part(RECORDING), part(b"png", name="cover", filename="c.png")),
    "a field without a file name": form(part(RECORDING, filename=None)),
    "a second input left empty": form(part(RECORDING), part(b"", filename="")),
    "base64, as Python's email package writes": BASE64_HEAD.encode() + base64.encodebytes(RECORDING) + b"\r\n" + form(),
    "a line before the form": b"This is a multi-part message.\r\n" + form(part(RECORDING)),
}


@pytest.mark.parametrize("name", FORMS)
async def test_a_form_with_one_recording_is_taken_whatever_is_beside_it(stack: Stack, sori: Sori, name: str) -> None:
    answer = await upload_body(stack.url, new_token(), FORMS[name])
    assert answer.status == 202, answer.body
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/webm;codecs=opus", "application/octet-stream"])
async def test_a_body_of_audio_is_the_recording(stack: Stack, sori: Sori, content_type: str) -> None:
    name = "attachment; filename*=utf-8''%EB%85%B9%EC%9D%8C.wav"
    headers = {"Content-Type": content_type, "Content-Disposition": name}
    assert await shown(sori, await upload_body(stack.url, new_token(), RECORDING, headers)) == "녹음.wav"
