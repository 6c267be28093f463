"""What becomes of real recordings: every format that browsers record completes, broken ones fail with reasons."""

import asyncio
import io
from typing import Any

import av
import pytest

from local_stack.stack import Stack
from tests.support import media
from tests.support.answers import LANGUAGES, assert_sentence
from tests.support.bucket import Bucket
from tests.support.recordings import FORMATS, Format, file_name, speech, truncated, wav, wav_header
from tests.support.sori import Sori, new_token

SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody minds. 안녕하세요."
LONG = " ".join([SENTENCE] * 4)
KEPT_AS: dict[Format, str] = {
    "wav": "wav",
    "wav-unknown-length": "wav",
    "wav-zero-length": "wav",
    "flac": "flac",
    "mp3": "mp3",
    "ogg": "ogg",
    "m4a": "m4a",
    "m4a-faststart": "m4a",
    "webm": "webm",
}
NO_AUDIO = {
    "a text": b"Dear diary, today nobody recorded anything.\n" * 50,
    "a picture": b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + bytes(500),
    "random bytes": bytes(range(251)) * 40,
    "a page": b"<!doctype html><html><body>404</body></html>",
    "an archive": b"PK\x03\x04" + bytes(300),
    "one byte": b"R",
    "zeros": bytes(5000),
    "a playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/recording.wav\n",
    "a list to concatenate": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
}


def flac_without_samples() -> bytes:
    content = io.BytesIO()
    with av.open(content, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=16000, layout="mono")
        container.start_encoding()
        container.mux(stream.encode(None))
    return content.getvalue()


NO_SOUND = {
    "a WAV without samples": wav_header(0, rate=16000),
    "a FLAC without samples": flac_without_samples(),
}


async def failed(sori: Sori, bucket: Bucket, recording: bytes, filename: str = "recording.wav") -> str:
    """Send what must fail; gives the code, having checked that it is explained and that nothing stays behind."""
    job_id = await sori.job(recording, filename=filename)
    state = await sori.ended(job_id)
    assert state["status"] == "failed", state
    assert "s3_url" not in state
    assert "result" not in state
    for language in LANGUAGES:
        assert_sentence((await sori.state(job_id, language))["error"]["message"], language)
    assert not await bucket.keys(f"audio/{job_id}")
    await bucket.until_inbox_is_empty()
    assert len(await bucket.keys(f"inbox/{job_id}")) == 1, "it must be rejected again if that was lost"
    return str(state["error"]["code"])


def test_every_format_that_can_be_made_is_tried() -> None:
    assert KEPT_AS.keys() == set(FORMATS)


@pytest.mark.parametrize("form", KEPT_AS)
async def test_speech_in_every_format_completes_and_is_kept_as_it_came(
    sori: Sori, bucket: Bucket, stack: Stack, jobs: Any, form: Format
) -> None:
    recording = speech(SENTENCE, form)
    job_id = await sori.job(recording, filename=file_name(form))
    state = await sori.ended(job_id)
    assert state["status"] == "completed", state
    key = f"audio/{job_id}.{KEPT_AS[form]}"
    assert state["s3_url"] == f"s3://{stack.settings['S3_BUCKET_NAME']}/{key}"
    assert await bucket.read(key) == recording
    found = (await jobs.find_one({"_id": job_id}))["audio"]
    spoken = (len(speech(SENTENCE)) - 44) / 2 / 22050
    assert found["duration_seconds"] == pytest.approx(spoken, abs=0.12)
    assert max(found["waveform"]) > 50
    await bucket.until_inbox_is_empty()


@pytest.mark.parametrize("form", ["flac", "mp3", "m4a", "m4a-faststart", "wav"])
@pytest.mark.parametrize("keep", [0.5, 0.9])
async def test_a_recording_that_was_cut_fails_as_truncated(
    sori: Sori, bucket: Bucket, form: Format, keep: float
) -> None:
    cut = truncated(speech(LONG, form), keep)
    assert await failed(sori, bucket, cut, file_name(form)) == "audio_truncated"


@pytest.mark.parametrize("name", NO_AUDIO)
async def test_what_is_not_audio_fails_as_such(sori: Sori, bucket: Bucket, name: str) -> None:
    assert await failed(sori, bucket, NO_AUDIO[name]) == "not_audio"


@pytest.mark.parametrize("name", NO_SOUND)
async def test_audio_of_zero_length_fails_as_empty(sori: Sori, bucket: Bucket, name: str) -> None:
    assert await failed(sori, bucket, NO_SOUND[name]) == "audio_empty"


async def test_audio_over_the_longest_fails_as_too_long(sori: Sori, bucket: Bucket) -> None:
    assert await failed(sori, bucket, wav(60.6, seed=2, rate=8000)) == "audio_too_long"


async def test_audio_of_exactly_the_longest_completes(sori: Sori) -> None:
    await sori.completed(wav(60, seed=3, rate=8000))


@pytest.mark.parametrize(
    ("kind", "extension", "media_type"),
    [
        ("amr", "amr", "audio/amr"),
        ("au", "au", "audio/basic"),
        ("caf", "caf", "audio/x-caf"),
        ("wma", "wma", "audio/x-ms-wma"),
        ("aiff", "aiff", "audio/aiff"),
        ("w64", "w64", "audio/x-w64"),
        ("3gp amr", "m4a", "audio/mp4"),
    ],
)
async def test_what_recorders_and_phones_write_is_kept_under_its_own_name_and_can_be_read_again(
    sori: Sori, kind: str, extension: str, media_type: str
) -> None:
    recording = media.made(kind)
    state = await sori.ended(await sori.job(recording, filename=f"recording.{extension}"))
    assert state["status"] == "completed", state
    assert state["s3_url"].endswith(f"/audio/{state['job_id']}.{extension}")
    answer = await sori.client.get(f"{sori.url}/jobs/{state['job_id']}/audio")
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.content == recording


@pytest.mark.parametrize("kind", ["m4a", "flac", "adts", "mp3 vbr", "webm", "ogg opus"])
async def test_a_recording_with_one_damaged_place_completes(sori: Sori, kind: str) -> None:
    state = await sori.ended(await sori.job(media.overwritten(media.made(kind), 60)))
    assert state["status"] == "completed", state
    found = (await sori.client.get(f"{sori.url}/jobs/{state['job_id']}")).json()["audio"]
    assert found["duration_seconds"] > 0.8 * media.SECONDS
    if kind in {"m4a", "flac"}:
        assert found["damaged_packets"] >= 1


async def test_a_recording_of_which_much_is_damaged_fails_as_such(sori: Sori, bucket: Bucket) -> None:
    whole = media.made("m4a")
    assert await failed(sori, bucket, media.overwritten(whole, len(whole) // 4, 0.35)) == "audio_damaged"


@pytest.mark.parametrize("name", ["ten endless sample tables", "FLAC at 655,350 Hz", "nine channels"])
async def test_a_hostile_file_fails_as_too_complex_while_others_complete(sori: Sori, bucket: Bucket, name: str) -> None:
    code, _ = await asyncio.gather(failed(sori, bucket, media.HOSTILE[name]()), sori.completed(wav(0.5, seed=9)))
    assert code == "audio_too_complex"


async def test_many_at_once_each_get_their_own_result(sori: Sori) -> None:
    tokens = [new_token() for _ in range(24)]
    states = await asyncio.gather(*(sori.completed(wav(0.5, seed=100 + i), t) for i, t in enumerate(tokens)))
    assert [state["result"]["video_id"] for state in states] == tokens
    assert all(state["job_id"] in state["result"]["s3_audio_url"] for state in states)
