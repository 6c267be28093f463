"""Who may do what: every route with every way to say who one is, good and bad.

The tables say what each route is for and what each caller may do, in words of their own: they are not made from the
gateway's, so a slip in the one shows in the other.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import httpx
import pytest
from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from pymongo import AsyncMongoClient

from chassis.identity.own_tokens import SESSION, TICKET, OwnTokens
from contracts.accounts import SESSION_COOKIE
from contracts.rights import Right
from local_stack import oidc_provider
from local_stack.stack import Stack
from tests.contract.documents import document
from tests.support.issuer import session_keys, signed, signed_with_public_key
from tests.support.logins import bearer, kept_key, person
from tests.support.sori import RECORDING, new_token
from tests.support.waiting import until

Headers = dict[str, str]


class For(StrEnum):
    """What a route is for."""

    EVERYBODY = "everybody, whatever credential comes along"
    ASKING = "everybody, but a bad credential is told"
    KNOWN = "whoever has said who they are"
    READING = "reading the catalogue"
    WRITING = "changing the catalogue"
    OWN = "one's own jobs, none in particular"
    JOB = "one job, which is the learner's"
    OPERATING = "metrics"


ROUTES: dict[str, For] = {
    "POST /tokens/{token_id}/upload-audio": For.OWN,
    "GET /jobs": For.OWN,
    "GET /tokens/analysis-result/{job_id}": For.JOB,
    "GET /tokens/analysis-progress/{job_id}": For.JOB,
    "GET /jobs/{job_id}": For.JOB,
    "DELETE /jobs/{job_id}": For.JOB,
    "GET /jobs/{job_id}/audio": For.JOB,
    "POST /jobs/{job_id}/retry": For.JOB,
    "POST /jobs/{job_id}/links": For.JOB,
    "GET /jobs/{job_id}/links": For.JOB,
    "DELETE /jobs/{job_id}/links/{link_id}": For.JOB,
    "POST /auth/tickets": For.JOB,
    "GET /shared/{secret}": For.EVERYBODY,
    "GET /shared/{secret}/audio": For.EVERYBODY,
    "POST /tokens/webhook/analysis-complete": For.EVERYBODY,
    "POST /webhook/analysis-complete": For.EVERYBODY,
    "GET /tokens": For.READING,
    "GET /tokens/{token_id}": For.READING,
    "POST /tokens/{token_id}/view": For.READING,
    "GET /tokens/{token_id}/reference-audio": For.READING,
    "GET /scripts": For.READING,
    "GET /scripts/token/{token_id}": For.READING,
    "GET /scripts/{script_id}": For.READING,
    "GET /actors": For.READING,
    "GET /actors/search/{name}": For.READING,
    "GET /actors/{actor_id}": For.READING,
    "GET /actors/{actor_id}/tokens": For.READING,
    "POST /tokens": For.WRITING,
    "PUT /tokens/{token_id}": For.WRITING,
    "DELETE /tokens/{token_id}": For.WRITING,
    "PUT /tokens/{token_id}/reference-audio": For.WRITING,
    "POST /scripts": For.WRITING,
    "PUT /scripts/{script_id}": For.WRITING,
    "DELETE /scripts/{script_id}": For.WRITING,
    "POST /actors": For.WRITING,
    "PUT /actors/{actor_id}": For.WRITING,
    "DELETE /actors/{actor_id}": For.WRITING,
    "POST /auth/session": For.KNOWN,
    "DELETE /auth/session": For.KNOWN,
    "POST /auth/google-login": For.EVERYBODY,
    "GET /me": For.ASKING,
    "GET /me/scores": For.OWN,
    "GET /me/export": For.OWN,
    "DELETE /me": For.OWN,
    "GET /health": For.ASKING,
    "GET /health/ready": For.ASKING,
    "GET /health/live": For.EVERYBODY,
}
UNDOCUMENTED: dict[str, For] = {
    "GET /metrics": For.OPERATING,
    "GET /docs": For.EVERYBODY,
    "GET /docs/oauth2-redirect": For.EVERYBODY,
    "GET /openapi.json": For.EVERYBODY,
    "GET /static-offline-docs/swagger-ui.css": For.EVERYBODY,
}
ENDS_THE_CALLER = {"DELETE /auth/session", "DELETE /me"}
"""Nobody who is let in is asked to call these: the other tests need them."""
IN, LOGIN, INVALID, EXPIRED = "let in", "401 login_required", "401 token_invalid", "401 token_expired"
NOT_ALLOWED, ORIGIN, HIDDEN = "403 not_allowed", "403 origin_not_allowed", "404 job_not_found"
REFUSALS = {LOGIN, INVALID, EXPIRED, NOT_ALLOWED, ORIGIN, HIDDEN}
CALLERS: dict[str, dict[For, str]] = {
    "nobody": {For.KNOWN: LOGIN, For.WRITING: LOGIN, For.OWN: LOGIN, For.JOB: LOGIN, For.OPERATING: LOGIN},
    "the learner": {For.WRITING: NOT_ALLOWED, For.OPERATING: NOT_ALLOWED},
    "the learner's session": {For.WRITING: NOT_ALLOWED, For.OPERATING: NOT_ALLOWED},
    "the learner's session as a bearer": {For.WRITING: NOT_ALLOWED, For.OPERATING: NOT_ALLOWED},
    "another learner": {For.WRITING: NOT_ALLOWED, For.JOB: HIDDEN, For.OPERATING: NOT_ALLOWED},
    "an editor": {For.JOB: HIDDEN, For.OPERATING: NOT_ALLOWED},
    "an operator": {},
    "a key for catalogue:read": {
        For.WRITING: NOT_ALLOWED,
        For.OWN: NOT_ALLOWED,
        For.JOB: NOT_ALLOWED,
        For.OPERATING: NOT_ALLOWED,
    },
    "a key for catalogue:write": {
        For.OWN: NOT_ALLOWED,
        For.JOB: NOT_ALLOWED,
        For.OPERATING: NOT_ALLOWED,
    },
    "a key for jobs:own": {
        For.WRITING: NOT_ALLOWED,
        For.JOB: HIDDEN,
        For.OPERATING: NOT_ALLOWED,
    },
    "a key for jobs:all": {For.WRITING: NOT_ALLOWED, For.OPERATING: NOT_ALLOWED},
    "a key for operate": {
        For.WRITING: NOT_ALLOWED,
        For.OWN: NOT_ALLOWED,
        For.JOB: NOT_ALLOWED,
    },
}
"""What each may not do; everything else they may."""
NOBODY = {
    "a share link's secret": INVALID,
    "a ticket as a bearer": INVALID,
    "an expired token": EXPIRED,
    "a token that counts later": INVALID,
    "a token for another audience": INVALID,
    "a token of another issuer": INVALID,
    "a token that names another issuer": INVALID,
    "a token signed with nothing": INVALID,
    "a token signed with the public key": INVALID,
    "a token of a key that was rotated out": INVALID,
    "a session of a key that was rotated out": INVALID,
    "a session signed with nothing": INVALID,
    "a session signed with the public key": INVALID,
    "a session that was ended": EXPIRED,
    "the cookie of a session that was ended": EXPIRED,
    "a session that is over": EXPIRED,
    "a session that never began": EXPIRED,
    "a key that was revoked": INVALID,
    "a key that has expired": EXPIRED,
    "a key that nobody made": INVALID,
    "a password": INVALID,
    "an empty header": INVALID,
}
"""Credentials that count for nothing, and what whoever comes with one is told wherever one is looked at."""


@dataclass
class World:
    """A stack, the learner's job on it, a share link and a ticket to that, and the headers of each caller."""

    stack: Stack
    client: httpx.AsyncClient
    job_id: str
    secret: str
    ticket: str
    headers: dict[str, Headers] = field(default_factory=dict)


def now_and(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(jws.extract_compact(token.encode()).payload)
    return found


async def told_by_the_provider(stack: Stack, name: str, **claims: Any) -> str:
    """An id token that the stack's provider signed, with these claims in place of its own."""
    issuer = stack.settings["OIDC_ISSUERS"]
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.put(f"{issuer}/users/{name}", json=claims)).raise_for_status()
    return stack.id_token(name)


async def published_key(stack: Stack) -> RSAKey:
    """The public key of the stack's provider."""
    async with httpx.AsyncClient(trust_env=False) as client:
        keys = (await client.get(f"{stack.settings['OIDC_ISSUERS']}/jwks")).json()["keys"]
    return RSAKey.import_key(keys[0])


@pytest.fixture(scope="module")
async def world(login_stack: Stack, client: httpx.AsyncClient) -> AsyncIterator[World]:
    """The learner's job has ended, and every caller has what it comes with."""
    async with AsyncMongoClient[dict[str, Any]](login_stack.settings["MONGODB_URL"]) as mongodb:
        yield await made(login_stack, client, mongodb.get_default_database())


async def made(stack: Stack, client: httpx.AsyncClient, database: Any) -> World:
    learner = person(stack, "learner")
    files = {"file": ("recording.wav", RECORDING, "audio/wav")}
    uploaded = await client.post(f"{stack.url}/tokens/{new_token()}/upload-audio", files=files, headers=learner)
    job_id = uploaded.json()["job_id"]

    async def has_ended() -> bool:
        return bool((await client.get(f"{stack.url}/jobs/{job_id}", headers=learner)).json()["status"] == "completed")

    await until(has_ended, "the end of the job")
    asked = {"right": "audio"}
    link = await client.post(f"{stack.url}/jobs/{job_id}/links", json=asked, headers=learner)
    ticket = await client.post(f"{stack.url}/auth/tickets", json={"job_id": job_id}, headers=learner)
    world = World(stack, client, job_id, link.json()["url"].rpartition("/")[2], ticket.json()["ticket"])
    world.headers |= await good(stack, client, database) | await bad(stack, client, world, database)
    return world


async def good(stack: Stack, client: httpx.AsyncClient, database: Any) -> dict[str, Headers]:
    """What callers who count come with."""
    scopes = [Right(scope) for scope in ("catalogue:read", "catalogue:write", "jobs:own", "jobs:all", "operate")]
    keys = [await kept_key(database, scope) for scope in scopes]
    session = await session_of(stack, client)
    return {
        "nobody": {},
        "the learner": person(stack, "learner"),
        "the learner's session": by_cookie(session),
        "the learner's session as a bearer": bearer(session),
        "another learner": person(stack, "anna"),
        "an editor": person(stack, "editor"),
        "an operator": person(stack, "operator"),
        **{f"a key for {scope}": bearer(key) for scope, key in zip(scopes, keys, strict=True)},
    }


async def bad(stack: Stack, client: httpx.AsyncClient, world: World, database: Any) -> dict[str, Headers]:
    """What counts for nothing."""
    token, session = stack.id_token("learner"), await session_of(stack, client)
    published, rotated_out = await published_key(stack), RSAKey.generate_key(2048, {"kid": "rotated out"})
    issuer_claims, session_claims = claims_of(token), claims_of(session)
    own = OwnTokens(stack.settings["SESSION_KEYS"])
    own_key = ECKey.import_key(json.loads(stack.settings["SESSION_KEYS"])["keys"][0])
    others = OwnTokens(session_keys(ECKey.generate_key("P-256", {"kid": "rotated out"})))
    ended, ended_cookie = await session_of(stack, client), await session_of(stack, client)
    for one in (ended, ended_cookie):
        gone = await client.delete(f"{stack.url}/auth/session", headers=bearer(one))
        assert gone.status_code == 204, gone.text
    past, future = int(time.time()) - 61, int(time.time()) + 300
    tokens = {
        "a share link's secret": world.secret,
        "a ticket as a bearer": world.ticket,
        "an expired token": await told_by_the_provider(stack, "late", exp=past),
        "a token that counts later": await told_by_the_provider(stack, "early", nbf=future),
        "a token for another audience": oidc_provider.id_token(stack.settings["OIDC_ISSUERS"], "another", "learner"),
        "a token of another issuer": signed({**issuer_claims, "iss": "https://issuer.example"}, rotated_out),
        "a token that names another issuer": await told_by_the_provider(stack, "away", iss="https://issuer.example"),
        "a token signed with nothing": signed(issuer_claims, published, "none"),
        "a token signed with the public key": signed_with_public_key(issuer_claims, published),
        "a token of a key that was rotated out": signed(issuer_claims, rotated_out),
        "a session of a key that was rotated out": others.sign(SESSION, now_and(600), sid=session_claims["sid"]),
        "a session signed with nothing": signed(session_claims, own_key, "none"),
        "a session signed with the public key": signed_with_public_key(session_claims, own_key),
        "a session that was ended": ended,
        "a session that is over": own.sign(SESSION, now_and(-61), sid=session_claims["sid"]),
        "a session that never began": own.sign(SESSION, now_and(600), sid="never began"),
        "a key that was revoked": await kept_key(database, *Right, revoked_at=now_and(-1)),
        "a key that has expired": await kept_key(database, *Right, expires_at=now_and(-61)),
        "a key that nobody made": "sori_" + "A" * 43,
    }
    return {
        **{name: bearer(token) for name, token in tokens.items()},
        "the cookie of a session that was ended": by_cookie(ended_cookie),
        "a password": {"Authorization": "Basic bGVhcm5lcjpsZWFybmVy"},
        "an empty header": {"Authorization": ""},
    }


async def session_of(stack: Stack, client: httpx.AsyncClient) -> str:
    """The token of a new session of the learner's."""
    opened = await client.post(f"{stack.url}/auth/session", headers=person(stack, "learner"))
    assert opened.status_code == 201, opened.text
    return str(opened.headers["set-cookie"].split(";")[0].removeprefix(f"{SESSION_COOKIE}="))


def by_cookie(session: str) -> Headers:
    """As a browser sends it, from a page of the same origin."""
    return {"Cookie": f"{SESSION_COOKIE}={session}", "Origin": "http://localhost:3000"}


async def outcome(world: World, route: str, headers: Headers, query: str = "") -> str:
    """How a call ends: let in, or refused, with the status and the code."""
    method, path = route.split(" ")
    values = {"job_id": world.job_id, "secret": world.secret, "link_id": "none", "name": "x"}
    address = path.format_map({**dict.fromkeys(("token_id", "script_id", "actor_id"), "999999"), **values})
    host = world.stack.url
    if path == "/metrics":
        # The edge hides them: whoever wants them asks each gateway itself. This is how another proxy would.
        host, headers = world.stack.parts["gateway-1"].address, {**headers, "X-Forwarded-For": "203.0.113.7"}
    body = {"job_id": world.job_id} if path == "/auth/tickets" else {}
    asked: dict[str, Any] = {} if method == "GET" else {"json": body}
    if path.endswith(("upload-audio", "reference-audio")) and method != "GET":
        asked = {"files": {"file": ("recording.wav", RECORDING, "audio/wav")}}
    async with world.client.stream(method, f"{host}{address}{query}", headers=headers, **asked) as answer:
        assert answer.status_code < 500, (route, answer.status_code)
        if answer.status_code not in {401, 403, 404}:
            return IN
        await answer.aread()
        refused = f"{answer.status_code} {answer.json()['code']}"
        # How to come in is said with every 401 (RFC 9110, section 15.5.2).
        assert refused not in {LOGIN, INVALID, EXPIRED} or answer.headers["www-authenticate"].startswith("Bearer ")
        return refused if refused in REFUSALS else IN


async def outcomes(world: World, route: str, callers: Collection[str]) -> dict[str, str]:
    """How the call ends for each of these callers."""
    found = await asyncio.gather(*(outcome(world, route, world.headers[caller]) for caller in callers))
    return dict(zip(callers, found, strict=True))


def documented() -> set[str]:
    paths = document("openapi/openapi.json")["paths"]
    return {f"{method.upper()} {path}" for path, calls in paths.items() for method in calls}


def test_the_table_has_every_route_and_no_other() -> None:
    assert documented() == set(ROUTES)


@pytest.mark.parametrize("route", [*ROUTES, *UNDOCUMENTED])
async def test_callers_may_do_what_they_may_and_nothing_else(world: World, route: str) -> None:
    kind = {**ROUTES, **UNDOCUMENTED}[route]
    expected = {caller: refused.get(kind, IN) for caller, refused in CALLERS.items()}
    if route == "POST /auth/session":
        expected |= {caller: NOT_ALLOWED for caller in CALLERS if "a key" in caller}
    if route in ENDS_THE_CALLER:
        expected = {caller: said for caller, said in expected.items() if said != IN}
    assert await outcomes(world, route, expected) == expected


@pytest.mark.parametrize("route", [*ROUTES, *UNDOCUMENTED])
async def test_what_counts_for_nothing_lets_nobody_in(world: World, route: str) -> None:
    is_looked_at = {**ROUTES, **UNDOCUMENTED}[route] != For.EVERYBODY
    expected = NOBODY if is_looked_at else dict.fromkeys(NOBODY, IN)
    assert await outcomes(world, route, expected) == expected


@pytest.mark.parametrize("route", ROUTES)
async def test_a_cookie_changes_nothing_without_an_origin_that_is_listed(world: World, route: str) -> None:
    cookie = {"Cookie": world.headers["the learner's session"]["Cookie"]}
    allowed = CALLERS["the learner's session"].get(ROUTES[route], IN)
    is_a_change = not route.startswith("GET ") and "webhook" not in route  # the analysis server is no page
    unnamed = ORIGIN if is_a_change and ROUTES[route] != For.EVERYBODY else allowed
    assert await outcome(world, route, cookie) == unnamed
    for origin in ("null", "https://another.example"):
        assert await outcome(world, route, {**cookie, "Origin": origin}) == (ORIGIN if is_a_change else allowed)


async def test_a_ticket_opens_one_stream_of_its_job_and_nothing_else(world: World) -> None:
    query = f"?ticket={world.ticket}"
    for route, kind in ROUTES.items():
        if route != "GET /tokens/analysis-progress/{job_id}":
            expected = CALLERS["nobody"].get(kind, IN)
            assert await outcome(world, route, {}, query) == expected, route
    route = "GET /tokens/analysis-progress/{job_id}"
    other = replace(world, job_id="00000000-0000-4000-8000-000000000000")
    assert await outcome(other, route, {}, query) == HIDDEN
    assert await outcome(world, route, {}, query) == IN
    assert await outcome(world, route, {}, query) == EXPIRED
    own = OwnTokens(world.stack.settings["SESSION_KEYS"])
    late = own.sign(TICKET, now_and(-1), jti="late", job_id=world.job_id)
    assert await outcome(world, route, {}, f"?ticket={late}") == EXPIRED
    session = world.headers["the learner's session as a bearer"]["Authorization"].removeprefix("Bearer ")
    for forged in (session, world.stack.id_token("learner"), "x", ""):
        assert await outcome(world, route, {}, f"?ticket={forged}") == INVALID


async def test_a_share_link_shows_its_job_alone(world: World) -> None:
    for path, status in {
        f"/shared/{world.secret}": 200,
        f"/shared/{world.secret}/audio": 200,
        f"/shared/{world.secret[:-1]}": 404,
        f"/shared/{world.job_id}": 404,
        f"/shared/{world.job_id}/audio": 404,
    }.items():
        assert (await world.client.get(f"{world.stack.url}{path}")).status_code == status, path
