"""Sessions of people, as the routes begin and end them in a real MongoDB."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from joserfc.jwk import ECKey
from pydantic import SecretStr
from starlette.types import Receive, Scope, Send

from chassis.identity.caller import Caller, InvalidCredentialError, Kind
from chassis.identity.identity import Identity
from chassis.identity.own_tokens import SESSION, TICKET, OwnTokens
from chassis.identity.settings import AuthSettings
from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.accounts import SESSION_COOKIE
from contracts.rights import Role, rights_of
from gateway.accounts import routes
from gateway.accounts.routes import AccountParts
from gateway.accounts.sessions import Sessions
from gateway.accounts.store import MOST_SESSIONS, SessionStore
from gateway.jobs.visible import VisibleJobs
from gateway.web.callers import STATE
from gateway.web.parts import give
from gateway.web.problems import handle_errors
from local_stack.stack import Stack
from tests.support.answers import assert_problem
from tests.support.databases import own_database

KEYS = json.dumps({"keys": [ECKey.generate_key("P-256", {"kid": "1"}).as_dict(private=True)]})
TOKENS = OwnTokens(KEYS)
OWNER, OTHER = "user:" + uuid.uuid4().hex, "user:" + uuid.uuid4().hex


@pytest.fixture
async def mongodb(stack: Stack) -> AsyncIterator[MongoDB]:
    """A database of its own."""
    async with own_database(stack) as url:
        mongodb = MongoDB(url, REQUEST_LIMITS)
        yield mongodb
        mongodb.close()


class Login:
    """Where a login is required."""

    own_tokens = TOKENS

    def forget(self) -> None:
        """Do nothing: nothing is remembered."""


def person(session_id: str | None) -> Caller:
    """A learner, by a token of an issuer or by a session."""
    roles = frozenset([Role.LEARNER])
    credential = None if session_id is None else f"session:{session_id}"
    return Caller(Kind.PERSON, rights_of(roles), OWNER, roles, credential)


class World:
    """The routes; `caller` is who asks."""

    def __init__(self, mongodb: MongoDB) -> None:
        self.store = SessionStore(mongodb)
        self.caller = person(None)
        app = FastAPI()
        handle_errors(app)
        app.include_router(routes.router)
        sessions, visible = Sessions(self.store, TOKENS), cast("VisibleJobs", None)
        give(app, AccountParts(cast("Identity", Login()), sessions, visible))
        self._app: Any = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[STATE] = self.caller
        await self._app(scope, receive, send)


def session_in(answer: httpx.Response) -> str:
    """The id of the session whose cookie an answer sets."""
    assert answer.status_code == 201, answer.text
    token = answer.headers["set-cookie"].split(";")[0].removeprefix(f"{SESSION_COOKIE}=")
    return str(TOKENS.claims(token, SESSION)["sid"])


async def test_no_session_begins_another(mongodb: MongoDB) -> None:
    world = World(mongodb)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(world), base_url="http://sori") as client:
        first, second = [session_in(await client.post("/auth/session")) for _ in range(2)]
        assert first != second
        world.caller = person(first)
        assert session_in(await client.post("/auth/session")) == first
        assert (await client.delete("/auth/session")).status_code == 204
        # A replica that has not heard of it yet believes the caller still.
        refused = await client.post("/auth/session")
        assert_problem(refused, 404, "session_not_found")
        assert "set-cookie" not in refused.headers
        world.caller = person(second)
        assert session_in(await client.post("/auth/session")) == second


async def test_one_session_too_many_ends_the_oldest(mongodb: MongoDB) -> None:
    sessions = Sessions(SessionStore(mongodb), TOKENS)
    (others, _), *own = [
        await sessions.begin(owner, [Role.LEARNER]) for owner in (OTHER, *[OWNER] * (MOST_SESSIONS + 2))
    ]
    ended = [not await sessions.end(session.session_id) for session, _ in own]
    assert ended == [True, True, *[False] * MOST_SESSIONS]
    assert await sessions.end(others.session_id)


async def test_a_ticket_ends_with_the_session_that_asked_for_it(mongodb: MongoDB) -> None:
    settings = AuthSettings(auth="required", session_keys=SecretStr(KEYS))
    identity, sessions = Identity(settings, mongodb), Sessions(SessionStore(mongodb), TOKENS)
    session, _ = await sessions.begin(OWNER, [Role.LEARNER])
    claims = {"jti": "1", "job_id": "2", "credential": f"session:{session.session_id}"}
    ticket = TOKENS.sign(TICKET, datetime.now(UTC) + timedelta(minutes=1), **claims)
    assert (await identity.ticket(ticket)).job_id == "2"
    await sessions.end(session.session_id)
    with pytest.raises(InvalidCredentialError) as refused:
        await identity.ticket(ticket)
    assert refused.value.expired
    await identity.stop()
