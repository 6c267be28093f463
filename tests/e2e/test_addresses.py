"""Addresses: unknown jobs, trailing slashes, wrong methods, and pages of other origins."""

import uuid

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.sori import RECORDING, Sori, new_token

FRONT = "https://front.example"
STRANGER = "https://stranger.example"
NOBODY = str(uuid.UUID(int=7))

UNKNOWN = {
    "a job that never was": str(uuid.uuid4()),
    "the same in capitals": str(uuid.uuid4()).upper(),
    "a word": "nobody",
    "a number": "1",
    "braces": "%7B" + NOBODY + "%7D",
    "an URN": f"urn:uuid:{NOBODY}",
    "no dashes": NOBODY.replace("-", ""),
    "a control character": "%01",
    "Korean": "%ED%95%9C%EA%B8%80",
    "no text": "%FF%FE",
    "a question": "%24where",
    "10,000 characters": "x" * 10_000,
}
LISTENERS = ("analysis-result", "analysis-progress")


@pytest.mark.parametrize("part", LISTENERS)
@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_or_malformed_job_id_is_404(
    stack: Stack, client: httpx.AsyncClient, part: str, name: str
) -> None:
    for language, header in LANGUAGES.items():
        headers = {"Accept-Language": header, "Accept": "text/event-stream"}
        answer = await client.get(f"{stack.url}/tokens/{part}/{UNKNOWN[name]}", headers=headers)
        assert_problem(answer, 404, "job_not_found", language)


@pytest.mark.parametrize("last_event_id", ["0", "5", "nonsense"])
async def test_a_listener_that_comes_back_for_an_unknown_job_is_told_404(
    stack: Stack, client: httpx.AsyncClient, last_event_id: str
) -> None:
    url = f"{stack.url}/tokens/analysis-progress/{NOBODY}"
    assert_problem(await client.get(url, headers={"Last-Event-ID": last_event_id}), 404, "job_not_found")


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/webhook/", "/tokens/a/b/c", "/tokens/analysis-progress/a/b", "/tokens/analysis-result/..%2F..%2F"],
)
async def test_an_address_where_nothing_is_gets_a_problem(stack: Stack, client: httpx.AsyncClient, path: str) -> None:
    for language, header in LANGUAGES.items():
        answer = await client.get(stack.url + path, headers={"Accept-Language": header})
        assert_problem(answer, 404, "not_found", language)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/tokens/test-token/upload-audio"),
        ("POST", f"/tokens/analysis-result/{NOBODY}"),
        ("POST", f"/tokens/analysis-progress/{NOBODY}"),
        ("GET", "/tokens/webhook/analysis-complete"),
    ],
)
async def test_a_wrong_method_gets_a_problem(stack: Stack, client: httpx.AsyncClient, method: str, path: str) -> None:
    for language, header in LANGUAGES.items():
        answer = await client.request(method, stack.url + path, headers={"Accept-Language": header})
        assert_problem(answer, 405, "method_not_allowed", language)


READ = (
    *("/health", "/health/live", "/health/ready", "/docs", "/openapi.json", "/jobs", "/jobs?limit=0", "/nowhere"),
    *("/tokens", "/tokens/", "/tokens/4711471", "/scripts/", "/actors/", "/actors/search/x", "/tokens/a/upload-audio"),
    *("/jobs/{job_id}", "/jobs/{job_id}/", "/jobs/{job_id}/audio", "/tokens/analysis-result/{job_id}"),
    *(f"/jobs/{NOBODY}", f"/tokens/analysis-result/{NOBODY}", f"/tokens/analysis-progress/{NOBODY}"),
)


async def test_head_is_answered_wherever_get_is(sori: Sori, client: httpx.AsyncClient) -> None:
    job_id = (await sori.completed())["job_id"]
    for path in READ:
        address = sori.url + path.format(job_id=job_id)
        got, head = await client.get(address), await client.head(address)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-type") == got.headers.get("content-type"), path
    stream = await client.head(sori.progress_url(job_id))
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert "content-length" not in stream.headers


async def test_head_of_a_running_jobs_stream_opens_none(sori: Sori, client: httpx.AsyncClient) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    for headers in ({}, {"Accept": "text/event-stream"}):
        answer = await client.head(sori.progress_url(job_id), headers=headers, timeout=5)
        assert (answer.status_code, answer.content) == (200, b"")
    await client.delete(f"{sori.url}/jobs/{job_id}")


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        (f"/jobs/{NOBODY}", "GET, HEAD, DELETE, OPTIONS"),
        ("/tokens/1", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/tokens/1/reference-audio/", "GET, HEAD, PUT, OPTIONS"),
        ("/tokens/1/upload-audio", "POST, OPTIONS"),
        (f"/tokens/analysis-progress/{NOBODY}", "GET, HEAD, OPTIONS"),
        ("/health/ready", "GET, HEAD, OPTIONS"),
    ],
)
async def test_an_address_tells_all_of_its_methods(
    sori: Sori, client: httpx.AsyncClient, path: str, methods: str
) -> None:
    refused, asked = await client.patch(sori.url + path), await client.options(sori.url + path)
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == methods
    assert (asked.status_code, asked.headers["allow"]) == (204, methods)


async def test_a_job_id_is_found_in_capitals_too(sori: Sori) -> None:
    state = await sori.completed()
    assert (await sori.result(state["job_id"].upper())).json() == state
    answer = await sori.client.get(sori.progress_url(state["job_id"].upper()))
    assert (answer.status_code, '"completed"' in answer.text) == (200, True)


async def test_a_trailing_slash_is_accepted_everywhere(sori: Sori) -> None:
    url = f"{sori.url}/tokens/{new_token('never-calls-back')}/upload-audio/"
    answer = await sori.client.post(url, files={"file": ("recording.wav", RECORDING)})
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    await sori.reached(job_id, 90)
    assert (await sori.client.get(sori.result_url(job_id) + "/")).json()["job_id"] == job_id
    webhook = sori.webhook_url(job_id, path="/tokens/webhook/analysis-complete/")
    assert (await sori.client.post(webhook, json={"status": "success", "result": {}})).status_code == 200
    assert (await sori.ended(job_id))["status"] == "completed"
    repeated = sori.webhook_url(job_id, path="/webhook/analysis-complete/")
    assert (await sori.client.post(repeated, json={"status": "success", "result": {}})).status_code == 200
    stream = await sori.client.get(sori.progress_url(job_id) + "/")
    assert (stream.status_code, '"completed"' in stream.text) == (200, True)
    for path in ("/docs/", "/health/", "/openapi.json/"):
        assert (await sori.client.get(sori.url + path)).status_code == 200, path


async def test_a_page_of_a_listed_origin_can_use_all_of_it(sori: Sori, client: httpx.AsyncClient) -> None:
    origin = {"Origin": FRONT}
    upload = await sori.upload(headers=origin)
    job_id = upload.json()["job_id"]
    await sori.ended(job_id)
    stream = await client.get(sori.progress_url(job_id), headers=origin)
    answers = {
        "upload": upload,
        "result": await sori.result(job_id, origin),
        "stream": stream,
        "told to stop": await client.get(sori.progress_url(job_id), headers={**origin, "Last-Event-ID": "99"}),
        "unknown job": await sori.result(NOBODY, origin),
        "unknown job's stream": await client.get(sori.progress_url(NOBODY), headers=origin),
        "bad form": await sori.upload(b"", headers=origin),
        "nothing there": await client.get(f"{sori.url}/nowhere", headers=origin),
        "wrong method": await client.get(f"{sori.url}/tokens/a/upload-audio", headers=origin),
        "health": await client.get(f"{sori.url}/health", headers=origin),
    }
    assert answers["told to stop"].status_code == 204
    assert "text/event-stream" in stream.headers["content-type"]
    allowed = {name: answer.headers.get_list("access-control-allow-origin") for name, answer in answers.items()}
    assert allowed == {name: [FRONT] for name in answers}
    credentials = {
        name: answer.headers.get_list("access-control-allow-credentials") for name, answer in answers.items()
    }
    assert credentials == {name: ["true"] for name in answers}
    assert all("Origin" in answer.headers["vary"] for answer in answers.values())
    assert "Location" in upload.headers["access-control-expose-headers"]


async def test_a_page_of_an_origin_that_is_not_listed_can_use_none_of_it(sori: Sori, client: httpx.AsyncClient) -> None:
    origin = {"Origin": STRANGER}
    for answer in (
        await sori.result(NOBODY, origin),
        await client.get(sori.progress_url(NOBODY), headers=origin),
        await client.get(f"{sori.url}/health", headers=origin),
    ):
        assert not {"access-control-allow-origin"} & answer.headers.keys()
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    ("path", "method", "header"),
    [
        ("/tokens/test-token/upload-audio", "POST", "content-type, traceparent"),
        ("/tokens/test-token/upload-audio/", "POST", "content-type"),
        ("/tokens/1", "PUT", "content-type, if-match"),
        ("/scripts/1/", "DELETE", "if-match"),
        (f"/tokens/analysis-result/{NOBODY}", "GET", "accept-language"),
        (f"/tokens/analysis-result/{NOBODY}", "HEAD", "accept-language"),
        (f"/tokens/analysis-progress/{NOBODY}", "GET", "last-event-id, cache-control"),
        (f"/tokens/analysis-progress/{NOBODY}/", "GET", "last-event-id"),
    ],
)
async def test_a_browser_that_asks_first_is_let_in_by_a_listed_origin_only(
    stack: Stack, client: httpx.AsyncClient, path: str, method: str, header: str
) -> None:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": header}
    answer = await client.options(stack.url + path, headers={"Origin": FRONT, **asked})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == FRONT
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert method in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in header.split(", "))
    refused = await client.options(stack.url + path, headers={"Origin": STRANGER, **asked})
    assert "access-control-allow-origin" not in refused.headers


async def test_health_says_what_is_up(stack: Stack, client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{stack.url}/health")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"accepting": "up", "rabbitmq": "up", "mongodb": "up", "s3": "up"}
