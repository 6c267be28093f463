"""What clients call their files: any name is taken, and none becomes part of a key."""

import unicodedata
from typing import Any

import pytest

from local_stack.stack import Stack
from tests.support.bucket import Bucket
from tests.support.raw_http import Answer, form, part, raw_connection
from tests.support.sori import RECORDING, Sori, new_token

NAMES = {
    "a path upwards": "../../../../etc/passwd",
    "an absolute path": "/etc/cron.d/evil.wav",
    "a Windows path": "C:\\Users\\me\\녹음.wav",
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
    body = form(part(RECORDING, filename=disposition_name))
    async with raw_connection(url) as connection:
        await connection.begin_upload(token_id, {"Content-Length": str(len(body))})
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
    assert kept is None or (0 < len(kept) <= 255 and not any(unicodedata.category(c)[0] == "C" for c in kept))


async def test_a_file_name_that_a_client_escaped_is_accepted(sori: Sori) -> None:
    job_id = await sori.job(filename='line\r\nbreak "quoted" 녹음.wav')
    assert (await sori.ended(job_id))["status"] == "completed"


async def test_a_name_of_the_extended_kind_is_accepted(stack: Stack, sori: Sori) -> None:
    extended = "x.wav\"; filename*=UTF-8''%EB%85%B9%EC%9D%8C%2F..%2Fevil.wav; x=\"y"
    answer = await upload_named(stack.url, new_token(), extended)
    assert answer.status == 202, answer.body
    assert (await sori.ended(answer.json()["job_id"]))["status"] == "completed"
