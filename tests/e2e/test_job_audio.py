"""A job's recording, whole and in ranges (RFC 9110, section 14), as a browser's player asks for it."""

import asyncio
import uuid
from collections.abc import Mapping

import httpx
import pytest

from gateway.web.dispositions import parameter
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.bucket import Bucket
from tests.support.recordings import speech, wav
from tests.support.sori import Sori, new_token

CONTENT = wav(3.0, seed=77)
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
async def url(sori: Sori) -> str:
    """Where the audio of a job is, whose recording is CONTENT."""
    job_id = (await sori.completed(CONTENT))["job_id"]
    return f"{sori.url}/jobs/{job_id}/audio"


async def get(sori: Sori, url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return await sori.client.get(url, headers=headers)


async def test_the_whole_recording_comes_as_it_was_sent(sori: Sori, url: str) -> None:
    answer = await get(sori, url)
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["etag"].startswith('"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-range" not in answer.headers


async def test_head_says_what_get_would_give_and_sends_nothing(sori: Sori, url: str) -> None:
    whole = await get(sori, url)
    head = await sori.client.head(url, headers={"Range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type", "etag", "accept-ranges"):
        assert head.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, SIZE - 1),
        ("bytes=-50", SIZE - 50, SIZE - 1),
        ("bytes=0-0", 0, 0),
        (f"bytes={SIZE - 1}-{SIZE * 9}", SIZE - 1, SIZE - 1),
        (f"bytes=-{SIZE * 9}", 0, SIZE - 1),
    ],
)
async def test_a_range_is_206_with_just_those_bytes(sori: Sori, url: str, asked: str, first: int, last: int) -> None:
    answer = await get(sori, url, {"Range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert answer.headers["content-length"] == str(last - first + 1)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 1}", "bytes=-0"])
async def test_a_range_beyond_the_end_is_416_with_the_size(sori: Sori, url: str, asked: str) -> None:
    for language, header in LANGUAGES.items():
        answer = await get(sori, url, {"Range": asked, "Accept-Language": header})
        assert_problem(answer, 416, "range_not_satisfiable", language)
        assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=5-2", "lines=1-2", "bytes=x"])
async def test_several_ranges_and_what_is_no_range_get_the_whole(sori: Sori, url: str, asked: str) -> None:
    answer = await get(sori, url, {"Range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_a_range_of_what_was_there_before_gets_the_whole_of_what_is_there_now(sori: Sori, url: str) -> None:
    etag = (await get(sori, url)).headers["etag"]
    same = await get(sori, url, {"Range": "bytes=0-9", "If-Range": etag})
    assert (same.status_code, same.content) == (206, CONTENT[:10])
    for other in ('"another"', f"W/{etag}", "Mon, 23 Nov 2026 12:00:00 GMT"):
        answer = await get(sori, url, {"Range": "bytes=0-9", "If-Range": other})
        assert (answer.status_code, answer.content) == (200, CONTENT)


async def test_many_players_at_once_all_get_their_ranges(sori: Sori, url: str) -> None:
    spans = [(begin * 1000, begin * 1000 + 999) for begin in range(40)]
    answers = await asyncio.gather(*(get(sori, url, {"Range": f"bytes={first}-{last}"}) for first, last in spans))
    assert [answer.content for answer in answers] == [CONTENT[first : last + 1] for first, last in spans]


async def test_a_player_that_goes_away_leaves_no_place_taken(sori: Sori, url: str) -> None:
    for _ in range(80):  # more than all gateways together give out at once
        async with sori.client.stream("GET", url) as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_raw(1000):
                break
    assert (await get(sori, url)).content == CONTENT


@pytest.mark.parametrize(
    ("sent", "saved"),
    [
        ("take 1.wav", "take 1.wav"),
        ("녹음.html", "녹음.html.wav"),
        ('a"; filename="b.exe', "a ; filename= b.exe.wav"),
        ("gpj.\u202evaw", "gpj.vaw.wav"),
    ],
)
async def test_whoever_saves_a_recording_is_offered_its_name(sori: Sori, sent: str, saved: str) -> None:
    files = {"file": (sent, CONTENT)}
    token_id = new_token()
    uploaded = await sori.client.post(f"{sori.url}/tokens/{token_id}/upload-audio", files=files)
    job_id = (await sori.ended(uploaded.json()["job_id"]))["job_id"]
    address = f"{sori.url}/jobs/{job_id}/audio"
    for answer in (await get(sori, address), await sori.client.head(address)):
        header = answer.headers["content-disposition"]
        assert header.startswith("inline; ")
        assert parameter(header, "filename") == saved


async def test_a_recording_has_its_media_type_when_the_store_has_forgotten_it(sori: Sori, bucket: Bucket) -> None:
    job_id = (await sori.completed(speech("Good morning.", "webm")))["job_id"]
    (key,) = await bucket.keys(f"audio/{job_id}")
    await bucket.put(key, await bucket.read(key))
    answer = await get(sori, f"{sori.url}/jobs/{job_id}/audio")
    assert answer.headers["content-type"] == "audio/webm"


async def test_there_is_no_audio_of_what_was_never_kept(sori: Sori) -> None:
    rejected = await sori.ended(await sori.job(b"this is no audio"))
    assert rejected["status"] == "failed"
    for language, header in LANGUAGES.items():
        named = {"Accept-Language": header}
        answer = await get(sori, f"{sori.url}/jobs/{rejected['job_id']}/audio", named)
        assert_problem(answer, 404, "audio_not_found", language)
        for nobody in (str(uuid.uuid4()), "nobody"):
            assert_problem(await get(sori, f"{sori.url}/jobs/{nobody}/audio", named), 404, "job_not_found", language)


async def test_a_page_of_another_origin_may_read_what_it_needs(sori: Sori, url: str) -> None:
    answer = await get(sori, f"{url}/", {"Range": "bytes=0-1", "Origin": "https://front.example"})
    assert answer.status_code == 206
    assert answer.headers["access-control-allow-origin"] == "https://front.example"
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("content-range", "accept-ranges", "etag"))
    preflight = await sori.client.options(
        url,
        headers={
            "Origin": "https://front.example",
            "Access-Control-Request-Method": "DELETE",
            "Access-Control-Request-Headers": "range, idempotency-key",
        },
    )
    assert preflight.status_code == 200
    assert "DELETE" in preflight.headers["access-control-allow-methods"]
