"""Reference audio, from its upload to the analysis server, and until nothing is left of it."""

import asyncio
import json
from datetime import UTC, datetime
from itertools import count
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from local_stack.stack import Stack
from tests.conftest import MAX_UPLOAD_BYTES
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import assert_problem
from tests.support.bucket import Bucket
from tests.support.catalogue import Row, new_catalogue_token, new_script, put_reference
from tests.support.raw_http import BOUNDARY, form, part, raw_connection
from tests.support.recordings import Format, speech, truncated, wav, wav_of_size
from tests.support.sori import RECORDING, Sori
from tests.support.waiting import until

ACTOR = wav(0.6, seed=77)
KNOWN_FIELDS = {"s3_audio_url", "webhook_url", "video_id"}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
_SEEDS = count(7_000)
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def recording() -> bytes:
    """Bytes that no other test has sent."""
    return wav(0.3, seed=next(_SEEDS))


def key_of(token: Row) -> str:
    """The key of a token's reference audio."""
    return str(token["reference_audio_url"]).split("/", 3)[3]


async def has_reference(sori: Sori, token_id: int, audio: bytes = ACTOR) -> Row:
    answer = await put_reference(sori, token_id, audio)
    assert answer.status_code == 200, answer.text
    token: Row = answer.json()
    return token


async def test_a_recording_is_sent_with_all_that_its_token_is_compared_by(
    sori: Sori, bucket: Bucket, analysis_server: AnalysisServer
) -> None:
    pitch = f"https://{bucket.name}.s3.us-east-1.amazonaws.com/catalogue/jack.json"
    token = await new_catalogue_token(sori, s3_textgrid_url="catalogue/jack.TextGrid", s3_pitch_url=pitch)
    second = await new_script(sori, token["id"], 63.25, 66.0, "진실을 감당할 수 없어!")
    first = await new_script(sori, token["id"], 61.6, 63.2, "You can't handle the truth!")
    token = await has_reference(sori, token["id"])
    assert token["reference_audio_url"].startswith(f"s3://{bucket.name}/references/{token['id']}/")

    token_id = str(token["id"])
    await sori.completed(recording(), token_id)
    # Other tests may have used the same number before it was in the catalogue.
    asked = (await analysis_server.requests_for(token_id))[-1].form
    assert set(asked) == KNOWN_FIELDS | {"s3_reference_url", "s3_textgrid_url", "s3_pitch_url", "scripts"}
    assert asked["s3_reference_url"] == token["reference_audio_url"]
    assert await bucket.read(key_of(token)) == ACTOR
    assert asked["s3_textgrid_url"] == f"s3://{bucket.name}/catalogue/jack.TextGrid"
    assert asked["s3_pitch_url"] == pitch
    assert json.loads(asked["scripts"]) == [
        {"script_id": first["id"], "start_seconds": 0.1, "end_seconds": 1.7, "script": first["script"]},
        {"script_id": second["id"], "start_seconds": 1.75, "end_seconds": 4.5, "script": second["script"]},
    ]


@pytest.mark.parametrize("form", ["{}000000", "0{}", "{}.0", " {}"])
async def test_a_token_id_that_is_not_just_a_catalogue_tokens_is_opaque(
    sori: Sori, analysis_server: AnalysisServer, form: str
) -> None:
    token = await new_catalogue_token(sori)
    await has_reference(sori, token["id"])
    token_id = form.format(token["id"])
    await sori.completed(recording(), token_id)
    assert set((await analysis_server.request_for(token_id)).form) == KNOWN_FIELDS


async def test_only_an_unchanged_reference_is_answered_for_from_the_cache(
    sori: Sori, analysis_server: AnalysisServer
) -> None:
    token, sent = await new_catalogue_token(sori), recording()
    token_id = str(token["id"])

    async def asked(count: int) -> dict[str, str]:
        await sori.completed(sent, token_id)
        await sori.completed(sent, token_id)
        requests = await analysis_server.requests_for(token_id)
        assert len(requests) == count
        return requests[-1].form

    assert set(await asked(1)) == KNOWN_FIELDS
    script = await new_script(sori, token["id"], 62.0, 63.0, "You can't handle the truth!")
    assert set(await asked(2)) == KNOWN_FIELDS | {"scripts"}
    first = await has_reference(sori, token["id"])
    assert (await asked(3))["s3_reference_url"] == first["reference_audio_url"]
    second = await has_reference(sori, token["id"])
    assert (await asked(4))["s3_reference_url"] == second["reference_audio_url"] != first["reference_audio_url"]
    answer = await sori.client.delete(f"{sori.url}/scripts/{script['id']}")
    assert answer.status_code == 204, answer.text
    assert set(await asked(5)) == KNOWN_FIELDS | {"s3_reference_url"}


async def test_a_retry_is_compared_with_what_the_token_has_by_then(sori: Sori, analysis_server: AnalysisServer) -> None:
    token = await new_catalogue_token(sori)
    token_id = str(token["id"])
    job = await sori.completed(recording(), token_id)
    token = await has_reference(sori, token["id"])
    answer = await sori.client.post(f"{sori.url}/jobs/{job['job_id']}/retry")
    assert answer.status_code == 202, answer.text
    await sori.ended(answer.json()["job_id"])
    first, second = await analysis_server.requests_for(token_id)
    assert set(first.form) == KNOWN_FIELDS
    assert second.form["s3_reference_url"] == token["reference_audio_url"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<!doctype html><html><body>404</body></html>" * 20, "not_audio"),
        (truncated(wav(1, seed=78)), "audio_truncated"),
        (wav(0, seed=79), "audio_empty"),
        (wav(61, seed=80, rate=8000), "audio_too_long"),
    ],
    ids=["html", "cut", "empty", "long"],
)
async def test_what_cannot_be_compared_with_is_refused_with_the_reason_and_changes_nothing(
    sori: Sori, content: bytes, code: str
) -> None:
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"])
    refused = await put_reference(sori, token["id"], content)
    assert_problem(refused, 422, code)
    assert (await sori.client.get(f"{sori.url}/tokens/{token['id']}")).json()["reference_audio_url"] == token[
        "reference_audio_url"
    ]


@pytest.mark.parametrize(("form", "media_type"), [("flac", "audio/flac"), ("webm", "audio/webm")])
async def test_a_reference_is_kept_with_its_media_type(sori: Sori, form: Format, media_type: str) -> None:
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"], speech("Hello.", form))
    heard = await sori.client.get(f"{sori.url}/tokens/{token['id']}/reference-audio")
    assert (heard.headers["content-type"], heard.content) == (media_type, speech("Hello.", form))


async def test_a_reference_has_its_media_type_when_the_store_has_forgotten_it(sori: Sori, bucket: Bucket) -> None:
    """As the local S3 server does whenever it starts again."""
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"], speech("Hello.", "webm"))
    await bucket.put(key_of(token), speech("Hello.", "webm"))
    address = f"{sori.url}/tokens/{token['id']}/reference-audio"
    for answer in (await sori.client.get(address), await sori.client.head(address)):
        assert answer.headers["content-type"] == "audio/webm"
        assert answer.headers["content-disposition"] == f'inline; filename="reference-{token["id"]}.webm"'


async def test_a_large_reference_comes_in_part_by_part_and_whole(sori: Sori, bucket: Bucket) -> None:
    audio = wav_of_size(12 * 1024 * 1024, 3, rate=192_000)
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"], audio)
    assert await bucket.read(key_of(token)) == audio


async def test_a_front_end_may_play_it(sori: Sori) -> None:
    token = await new_catalogue_token(sori)
    address = f"{sori.url}/tokens/{token['id']}/reference-audio"
    assert_problem(await sori.client.get(address), 404, "reference_not_found")
    token = await has_reference(sori, token["id"])
    whole = await sori.client.get(address)
    assert (whole.status_code, whole.content, whole.headers["Content-Type"]) == (200, ACTOR, "audio/wav")
    part = await sori.client.get(address + "/", headers={"Range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, ACTOR[4:12])
    assert part.headers["Content-Range"] == f"bytes 4-11/{len(ACTOR)}"
    head = await sori.client.head(address)
    assert (head.status_code, int(head.headers["Content-Length"])) == (200, len(ACTOR))
    beyond = await sori.client.get(address, headers={"Range": f"bytes={len(ACTOR)}-"})
    assert_problem(beyond, 416, "range_not_satisfiable")
    await has_reference(sori, token["id"], RECORDING)
    assert (await sori.client.get(address)).content == RECORDING
    unknown = await sori.client.get(f"{sori.url}/tokens/{2**31 - 1}/reference-audio")
    assert_problem(unknown, 404, "token_not_found")


async def test_a_change_raises_the_tag_and_asks_for_the_present_one(sori: Sori) -> None:
    token = await new_catalogue_token(sori)
    address = f"{sori.url}/tokens/{token['id']}"
    before = (await sori.client.get(address)).headers["ETag"]
    answer = await put_reference(sori, f"{token['id']}", headers={"If-Match": before})
    assert answer.status_code == 200
    assert answer.headers["ETag"] not in {before, ""}
    assert {**answer.json(), "scripts": []} == (await sori.client.get(address)).json()
    again = await put_reference(sori, token["id"], headers={"If-Match": before})
    assert_problem(again, 412, "precondition_failed")
    assert again.headers["ETag"] == answer.headers["ETag"]
    assert (await put_reference(sori, token["id"], headers={"If-Match": "*"})).status_code == 200
    stale = await put_reference(sori, token["id"], headers={"If-Match": f'"9999", {answer.headers["ETag"]}'})
    assert stale.status_code == 412


@pytest.mark.parametrize(
    ("what", "status", "code"),
    [
        ("an unknown token", 404, "token_not_found"),
        ("no integer", 404, "token_not_found"),
        ("a stale tag", 412, "precondition_failed"),
        ("too much", 413, "upload_too_large"),
    ],
)
async def test_what_cannot_be_taken_is_refused_before_its_body_comes(
    sori: Sori, what: str, status: int, code: str
) -> None:
    token_id: object = (await new_catalogue_token(sori))["id"]
    headers = {"Content-Type": FORM, "Content-Length": str(10_000_000)}
    if what == "an unknown token":
        token_id = 2**31 - 1
    elif what == "no integer":
        token_id = "test-token"
    elif what == "a stale tag":
        headers["If-Match"] = '"4711"'
    else:
        headers["Content-Length"] = str(2 * MAX_UPLOAD_BYTES)
    async with raw_connection(sori.url) as connection:
        await connection.begin(f"/tokens/{token_id}/reference-audio", headers, "PUT")
        await connection.send(part(RECORDING)[:100])
        answer = await connection.answer()
    assert (answer.status, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(part(b"")), 422, "file_empty"),
        (form(part(RECORDING, name="audio")), 422, "file_missing"),
        (form(part(RECORDING), part(RECORDING)), 422, "too_many_files"),
        (part(RECORDING)[:-50], 400, "form_malformed"),
    ],
    ids=["empty", "another field", "two files", "cut off"],
)
async def test_a_bad_form_changes_nothing(sori: Sori, bucket: Bucket, body: bytes, status: int, code: str) -> None:
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"])
    address = f"{sori.url}/tokens/{token['id']}"
    refused = await sori.client.put(f"{address}/reference-audio/", content=body, headers={"Content-Type": FORM})
    assert_problem(refused, status, code)
    assert (await sori.client.get(address)).json()["reference_audio_url"] == token["reference_audio_url"]
    assert await bucket.keys(f"references/{token['id']}/") == {key_of(token)}


async def test_the_audio_may_be_the_whole_body(sori: Sori, bucket: Bucket) -> None:
    address = f"{sori.url}/tokens/{(await new_catalogue_token(sori))['id']}/reference-audio"
    headers = {"Content-Type": "audio/wav"}
    answer = await sori.client.put(address, content=RECORDING, headers=headers)
    assert answer.status_code == 200, answer.text
    assert (await sori.client.get(address)).content == RECORDING
    refused = await sori.client.put(address, content=RECORDING, headers={**headers, "Content-Encoding": "gzip"})
    assert_problem(refused, 415, "encoding_unsupported")
    assert await bucket.keys(f"references/{answer.json()['id']}/") == {key_of(answer.json())}


async def test_pages_of_the_front_end_may_send_one(sori: Sori) -> None:
    asked = {
        "Origin": "https://front.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "if-match",
    }
    answer = await sori.client.options(f"{sori.url}/tokens/1/reference-audio", headers=asked)
    assert answer.status_code == 200
    assert "PUT" in answer.headers["Access-Control-Allow-Methods"]


async def test_of_several_at_once_one_stays_and_the_others_are_swept(stack: Stack, sori: Sori, bucket: Bucket) -> None:
    token = await new_catalogue_token(sori)
    audio = [wav(0.2, seed=number) for number in range(4)]
    answers: list[httpx.Response] = await asyncio.gather(*(put_reference(sori, token["id"], one) for one in audio))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.headers["ETag"] for answer in answers}) == 4
    latest = max(answers, key=lambda answer: int(answer.headers["ETag"].strip('"'))).json()
    kept = (await sori.client.get(f"{sori.url}/tokens/{token['id']}")).json()
    assert kept["reference_audio_url"] == latest["reference_audio_url"]
    prefix = f"references/{token['id']}/"
    assert len(await bucket.keys(prefix)) == 4
    await bucket.put(f"{key_of(answers[0].json())}.analysis-1", b"what the analysis server keeps")
    await age(stack, prefix, besides=key_of(kept))

    async def swept() -> bool:
        return await bucket.keys(prefix) - {f"{key_of(kept)}.analysis-1"} == {key_of(kept)}

    await until(swept, "all but the one that the token names being gone")


async def test_the_reference_of_a_deleted_token_is_swept(stack: Stack, sori: Sori, bucket: Bucket) -> None:
    token = await has_reference(sori, (await new_catalogue_token(sori))["id"])
    prefix = f"references/{token['id']}/"
    answer = await sori.client.delete(f"{sori.url}/tokens/{token['id']}")
    assert answer.status_code == 204, answer.text
    assert await bucket.keys(prefix), "a job on its way may need it"
    await age(stack, prefix)

    async def swept() -> bool:
        return not await bucket.keys(prefix)

    await until(swept, "the reference being gone")


async def age(stack: Stack, prefix: str, besides: str = "") -> None:
    """Make it long ago that these were named for the last time."""
    async with AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"]) as mongodb:
        records = mongodb.get_default_database()["references"]
        meant = {"_id": {"$regex": f"^{prefix}", "$ne": besides}}

        async def aged() -> bool:
            # Those that were seen to be used are marked at a look of the sweeper; until then there is nothing to age.
            await records.update_many({**meant, "unused_since": {"$ne": None}}, {"$set": {"unused_since": LONG_AGO}})
            return not await records.count_documents({**meant, "unused_since": None})

        await until(aged, "the sweeper having seen that they are not used")
