"""Who is let in where it depends on more than the caller: a private catalogue, and routes that nothing is said of."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from joserfc.jwk import ECKey
from pydantic import SecretStr
from starlette.responses import PlainTextResponse

from chassis.clients import Proxies
from chassis.identity.identity import Identity
from chassis.identity.settings import AuthSettings
from chassis.mongodb import REQUEST_LIMITS, MongoDB
from chassis.quotas.counts import Counts
from contracts.rights import Right
from gateway.accounts.access import unlisted
from gateway.accounts.guard import Guard
from gateway.accounts.sessions import Sessions
from gateway.accounts.store import SessionStore
from gateway.web.quotas import ClientQuotas
from tests.support.issuer import AUDIENCE, Issuer, running_issuer, session_keys

CATALOGUE = "/tokens"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as running:
        yield running


async def status(issuer: Issuer, anonymous: Sequence[Right], method: str, path: str, token: str | None) -> int:
    """How the guard of a service whose handlers answer 200 answers; MongoDB is not there to be asked."""
    keys = SecretStr(session_keys(ECKey.generate_key("P-256")))
    settings = AuthSettings(auth="required", oidc_issuers=issuer.url, oidc_audiences=AUDIENCE, session_keys=keys)
    mongodb = MongoDB("mongodb://127.0.0.1:1/sori", REQUEST_LIMITS)
    identity = Identity(settings, mongodb, anonymous)
    sessions, quotas = Sessions(SessionStore(mongodb), identity.own_tokens), ClientQuotas(Counts({}), Proxies([]))
    guard: Any = Guard(PlainTextResponse("in"), identity, sessions, quotas, [])
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://sori") as client:
        answer = await client.request(method, path, headers=headers)
    await identity.stop()
    mongodb.close()
    return answer.status_code


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_private_catalogue_is_for_those_who_have_logged_in(issuer: Issuer, method: str) -> None:
    public = [Right.CATALOGUE_READ]
    assert await status(issuer, public, method, CATALOGUE, None) == 200
    assert await status(issuer, [], method, CATALOGUE, None) == 401
    assert await status(issuer, [], method, CATALOGUE, issuer.token()) == 200
    assert await status(issuer, public, method, CATALOGUE, issuer.token(aud="another")) == 401


async def test_an_issuer_that_is_away_lets_nobody_in(issuer: Issuer) -> None:
    issuer.is_away = True
    assert await status(issuer, [], "GET", "/jobs", issuer.token(roles=["operator"])) == 503


def test_a_route_that_nothing_is_said_of_is_named() -> None:
    router = APIRouter(prefix="/things")

    @router.get("/{thing_id}")
    async def thing() -> None: ...

    @router.api_route("", methods=["POST", "PATCH"])
    async def things() -> None: ...

    assert unlisted([router]) == ["GET /things/{thing_id}", "PATCH /things", "POST /things"]
