"""What the analysis server refuses before it takes any work on, and the settings that it refuses to start with."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from analysis_server import SERVICE
from analysis_server.app import create_app
from analysis_server.routes import MAX_BODY_BYTES
from analysis_server.settings import Settings
from chassis import process

GOOD = {"s3_audio_url": "s3://bucket/audio/a.wav", "webhook_url": "http://127.0.0.1:9/hook?x=1", "video_id": "t1"}


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """An application whose lifespan never began: what passes validation would fail, what is refused needs nothing."""
    app = create_app(Settings(s3_bucket_name="bucket", webhook_attempts=1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as made:
        yield made


async def problem(client: httpx.AsyncClient, form: dict[str, str]) -> tuple[int, str]:
    response = await client.post("/analyze-voice", data=form)
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert body["status"] == response.status_code
    assert body["type"] == f"/problems/{body['code']}"
    assert body["title"]
    assert body["detail"].endswith(".")
    return response.status_code, body["code"]


@pytest.mark.parametrize("field", list(GOOD))
async def test_a_missing_field_is_named(client: httpx.AsyncClient, field: str) -> None:
    form = {name: value for name, value in GOOD.items() if name != field}
    assert await problem(client, form) == (422, "field_missing")
    assert field in (await client.post("/analyze-voice", data=form)).json()["detail"]


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("s3_audio_url", "s3://other/audio/a.wav", "audio_not_in_bucket"),
        ("s3_audio_url", "s3://bucket.evil/audio/a.wav", "audio_not_in_bucket"),
        ("s3_audio_url", "http://bucket/audio/a.wav", "audio_url_invalid"),
        ("s3_audio_url", "file:///etc/passwd", "audio_url_invalid"),
        ("s3_audio_url", "s3://bucket", "audio_url_invalid"),
        ("s3_audio_url", "s3://bucket/", "audio_url_invalid"),
        ("s3_audio_url", "s3://bucket/audio/../../other/a.wav", "audio_url_invalid"),
        ("s3_audio_url", "s3://bucket/a\nb.wav", "audio_url_invalid"),
        ("s3_audio_url", "S3://bucket/a.wav", "audio_url_invalid"),
        ("webhook_url", "ftp://host/hook", "webhook_url_invalid"),
        ("webhook_url", "file:///etc/passwd", "webhook_url_invalid"),
        ("webhook_url", "//host/hook", "webhook_url_invalid"),
        ("webhook_url", "http://", "webhook_url_invalid"),
        ("webhook_url", "http://host:port/", "webhook_url_invalid"),
        ("webhook_url", "http://host/\r\nX: y", "webhook_url_invalid"),
        ("webhook_url", "http://[::1/", "webhook_url_invalid"),
        ("video_id", "x" * 2000, "field_too_long"),
        ("s3_reference_url", "x" * 5000, "field_too_long"),
    ],
)
async def test_a_bad_value_has_its_code(client: httpx.AsyncClient, field: str, value: str, code: str) -> None:
    assert await problem(client, GOOD | {field: value}) == (422, code)


SCRIPT = {"script_id": 1, "start_seconds": 0.5, "end_seconds": 2, "script": "Hello."}


@pytest.mark.parametrize(
    "scripts",
    [
        "Hello.",
        "{}",
        "[[]]",
        json.dumps(SCRIPT),
        *(json.dumps([{name: value for name, value in SCRIPT.items() if name != missing}]) for missing in SCRIPT),
        json.dumps([SCRIPT | {"script_id": "1"}]),
        json.dumps([SCRIPT | {"script_id": 0}]),
        json.dumps([SCRIPT | {"script_id": 1.5}]),
        json.dumps([SCRIPT | {"start_seconds": "0"}]),
        json.dumps([SCRIPT | {"start_seconds": 2}]),
        json.dumps([SCRIPT | {"end_seconds": float("nan")}]),
        json.dumps([SCRIPT | {"end_seconds": float("inf")}]),
        json.dumps([SCRIPT | {"script": " "}]),
        json.dumps([SCRIPT | {"script": None}]),
        json.dumps([SCRIPT | {"script": "x" * 501}]),
        json.dumps([SCRIPT, SCRIPT]),
        json.dumps([SCRIPT | {"script_id": number} for number in range(1, 102)]),
    ],
    ids=range(20),
)
async def test_scripts_that_are_none_are_refused(client: httpx.AsyncClient, scripts: str) -> None:
    assert await problem(client, GOOD | {"scripts": scripts}) == (422, "scripts_invalid")


async def test_the_first_mistake_in_the_scripts_is_named(client: httpx.AsyncClient) -> None:
    scripts = json.dumps([SCRIPT, SCRIPT | {"script_id": 2, "end_seconds": "late"}])
    detail = (await client.post("/analyze-voice", data=GOOD | {"scripts": scripts})).json()["detail"]
    assert detail.startswith("scripts[1].end_seconds: ")


async def test_an_endless_body_is_cut_off(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        yield b"scripts="
        while True:
            read += 65_536
            yield b"x" * 65_536

    headers = {"content-type": "application/x-www-form-urlencoded"}
    response = await client.post("/analyze-voice", content=endless(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
    assert read <= MAX_BODY_BYTES + 2 * 65_536


async def test_a_body_declared_too_large_is_refused(client: httpx.AsyncClient) -> None:
    assert await problem(client, GOOD | {"scripts": "x" * MAX_BODY_BYTES}) == (413, "body_too_large")


async def test_a_body_that_is_no_form_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.post("/analyze-voice", json=GOOD)
    assert (response.status_code, response.json()["code"]) == (422, "field_missing")


async def test_unknown_addresses_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    unknown = await client.get("/nothing")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    wrong = await client.get("/analyze-voice")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST, OPTIONS"


async def test_a_live_process_says_so(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "ok"}
    head = await client.head("/health/live")
    assert (head.status_code, head.content) == (200, b"")


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PORT", "70000")
    monkeypatch.setenv("WORKERS", "none")
    monkeypatch.setenv("S3_BUCKET_NAME", "")
    with pytest.raises(SystemExit) as refused:
        process.run(SERVICE, Settings, create_app)
    assert refused.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert sorted(line.split()[2].rstrip(":") for line in lines) == ["PORT", "S3_BUCKET_NAME", "WORKERS"]


def test_workers_default_to_the_cores_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2})
    assert Settings(s3_bucket_name="bucket").workers == 3


def test_the_secret_is_not_shown() -> None:
    assert "hush" not in repr(Settings(s3_bucket_name="bucket", aws_secret_access_key="hush"))
