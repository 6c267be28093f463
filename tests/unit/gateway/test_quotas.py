"""How the gateway counts requests and uploads, and answers those who have reached a limit."""

from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from chassis.clients import Clients, Proxies
from chassis.identity.caller import ANYBODY, Caller, InvalidCredentialError, Kind
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, Quota
from contracts.events import JsonObject
from contracts.rights import Right
from gateway.accounts.guard import Guard
from gateway.web import problems
from gateway.web.quotas import JOBS_WAITING, UPLOAD_BYTES, UPLOADS, ClientQuotas

ANN = {"Authorization": "Bearer ann"}
BOB = {"Authorization": "Bearer bob"}
NOW = 1_800_000_000.0
"""Time stands still, so that no window ends."""
HOME, AWAY = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}


class Identity:
    """Knows everybody but `nobody`, by their first name."""

    anonymous = Caller(Kind.ANONYMOUS, frozenset([Right.CATALOGUE_READ]))

    def __init__(self, *, is_required: bool) -> None:
        self.is_required = is_required

    async def caller(self, headers: list[tuple[bytes, bytes]]) -> Caller:
        name = dict(headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
        if name == "nobody":
            raise InvalidCredentialError("who?")
        return Caller(Kind.PERSON, frozenset(Right), f"user:{name}") if name else self.anonymous


class File:
    """A file of three chunks."""

    filename: str | None = "take.wav"
    metadata: JsonObject | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"12345"


def gateway(limits: Mapping[Quota, int], *, is_required: bool = True) -> httpx.AsyncClient:
    """A gateway of a few routes behind one trusted proxy; each request comes from there."""
    proxies = Proxies([ip_network("127.0.0.1")])
    quotas = ClientQuotas(Counts(limits, lambda: NOW), proxies)
    app = FastAPI()
    problems.handle_errors(app)

    async def nothing() -> None:
        pass

    async def upload(request: Request) -> int:
        quotas.check(request, JOBS_WAITING, UPLOAD_BYTES)
        with quotas.held(request, UPLOADS):
            async for _ in quotas.counted(request, File()).chunks():
                pass
        quotas.add(request, JOBS_WAITING, 1)
        return 0

    for path in ("/tokens", "/health", "/health/live", "/metrics"):
        app.add_api_route(path, nothing)
    for path in ("/tokens/webhook/analysis-complete", "/webhook/analysis-complete", "/auth/google-login"):
        app.add_api_route(path, nothing, methods=["POST"])
    for token in ("1", "webhook"):
        app.add_api_route(f"/tokens/{token}/upload-audio", upload, methods=["POST"])
    identity: Any = Identity(is_required=is_required)
    sessions: Any = None
    app.add_middleware(Guard, identity=identity, sessions=sessions, quotas=quotas, origins=[])
    app.add_middleware(Clients, proxies=proxies)
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://sori")


async def test_a_client_gets_429_and_is_told_when_to_come_again() -> None:
    async with gateway({REQUESTS: 2}) as client:
        for left in (1, 0):
            answer = await client.get("/tokens", headers=ANN)
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == '"requests";q=2;w=60'
            assert answer.headers["ratelimit"].startswith(f'"requests";r={left};t=')
        refused = await client.get("/tokens", headers={**ANN, "Accept-Language": "en"})
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_requests"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"].startswith('"requests";r=0;t=')
        assert (await client.get("/tokens", headers=BOB)).status_code == 200


async def test_who_does_not_say_who_it_is_counts_by_its_address() -> None:
    async with gateway({REQUESTS: 1}) as client:
        assert (await client.get("/tokens", headers=HOME)).status_code == 200
        assert (await client.get("/tokens", headers=HOME)).status_code == 429
        assert (await client.head("/tokens", headers=HOME)).status_code == 429
        assert (await client.get("/tokens", headers=AWAY)).status_code == 200
        assert (await client.get("/tokens", headers={**HOME, **ANN})).status_code == 200
        v6 = {"X-Forwarded-For": "2001:db8::1"}, {"X-Forwarded-For": "2001:db8::2"}
        assert [(await client.get("/tokens", headers=one)).status_code for one in v6] == [200, 429]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/tokens", 401), ("POST", "/auth/google-login", 200), ("GET", "/nothing", 404)],
)
async def test_guessing_is_limited_by_address(method: str, path: str, status: int) -> None:
    async with gateway({REQUESTS: 2}) as client:
        headers = {**HOME, "Authorization": "Bearer nobody"}
        answers = [(await client.request(method, path, headers=headers)).status_code for _ in range(3)]
        assert answers == [status, status, 429]
        assert (await client.get("/tokens", headers={**HOME, **ANN})).status_code == 200


@pytest.mark.parametrize("is_required", [True, False])
async def test_probes_the_analysis_server_and_the_inner_network_are_not_limited(is_required: bool) -> None:
    async with gateway({REQUESTS: 1}, is_required=is_required) as client:
        for _ in range(3):
            for path in ("/health", "/health/live"):
                answer = await client.get(path, headers=HOME)
                assert answer.status_code == 200
                assert "ratelimit" not in answer.headers
            for path in ("/tokens/webhook/analysis-complete", "/webhook/analysis-complete"):
                assert (await client.post(path, headers=HOME)).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
            assert (await client.get("/tokens")).status_code == 200


@pytest.mark.parametrize("is_required", [True, False])
async def test_uploads_for_a_token_that_is_called_webhook_are_counted(is_required: bool) -> None:
    async with gateway({REQUESTS: 1}, is_required=is_required) as client:
        answers = [await client.post("/tokens/webhook/upload-audio", headers={**HOME, **ANN}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]


async def test_without_login_addresses_are_limited_all_the_same() -> None:
    async with gateway({REQUESTS: 1}, is_required=False) as client:
        assert [(await client.get("/tokens", headers=HOME)).status_code for _ in range(2)] == [200, 429]
        assert (await client.get("/tokens", headers=AWAY)).status_code == 200


@pytest.mark.parametrize(
    ("quota", "limit", "code"),
    [(UPLOAD_BYTES, 30, "too_many_bytes"), (JOBS_WAITING, 2, "too_many_jobs")],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_uploads_count_with_bytes_and_jobs(quota: Quota, limit: int, code: str) -> None:
    async with gateway({quota: limit, UPLOADS: 1}) as client:
        for _ in range(2):
            answer = await client.post("/tokens/1/upload-audio", headers=ANN)
            assert answer.status_code == 200
            assert f'"{quota.name}";r=' in answer.headers["ratelimit"]
            assert '"uploads";r=0' in answer.headers["ratelimit"]
        refused = await client.post("/tokens/1/upload-audio", headers=ANN)
        assert (refused.status_code, refused.json()["code"]) == (429, code)
        assert refused.headers["connection"] == "close", "its body is not read"
        assert int(refused.headers["retry-after"]) >= 1
        assert (await client.post("/tokens/1/upload-audio", headers=BOB)).status_code == 200


async def test_uploads_under_way_are_counted() -> None:
    counts = Counts({UPLOADS: 1})
    quotas = ClientQuotas(counts, Proxies([]))
    answers: list[int] = []

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        with (
            quotas.held(request, UPLOADS),
            pytest.raises(problems.ProblemError) as refused,
            quotas.held(request, UPLOADS),
        ):
            raise AssertionError
        answers.append(refused.value.kind.status)

    async def nothing(*_: object) -> Any:
        return None

    for _ in range(2):
        scope = {"type": "http", "method": "POST", "headers": [], "client": ("192.0.2.1", 1), "caller": ANYBODY}
        await quotas.serve(answer, scope, nothing, nothing)
    assert answers == [429, 429]
