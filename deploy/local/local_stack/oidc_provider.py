"""The OpenID Connect provider of a stack that asks for a login and is given no issuers: for trying and for tests.

It believes whoever says who they are, so it listens on the loopback address alone.
"""

import http.client
import json
import sys
from collections.abc import Mapping
from typing import Any

import httpx

from local_stack.errors import LoginFailedError
from local_stack.part import NotReadyError, Part
from local_stack.ports import LOOPBACK, Ports

PEOPLE = ("learner", "editor", "operator")
"""Whom it knows, each in the role of that name. It takes in any other name too: a learner."""
AUDIENCE = "sori-local"
"""Whom its tokens are for when nothing else was given."""
_SCOPE = "openid profile email"
_REDIRECT = "http://localhost/"
"""Where a page would be sent back to; nothing needs to listen there, since the code is read from the address."""


def issuer(ports: Ports) -> str:
    """Return what its tokens name as their issuer: its address, as the services ask it."""
    return f"http://{LOOPBACK}:{ports.oidc_provider}"


def provider(ports: Ports, roles_claim: str, system: Mapping[str, str]) -> Part:
    """The provider. It puts each person's role where `roles_claim` says; a dot leads into an object."""
    people = [option for person in PEOPLE for option in ("--user-claims", json.dumps(_claims(person, roles_claim)))]
    return Part(
        name="oidc-provider",
        command=(
            *(sys.executable, "-m", "oidc_provider_mock"),
            *("--host", LOOPBACK, "--port", str(ports.oidc_provider)),
            *people,
        ),
        env=system,
        ports={ports.oidc_provider: "the OpenID Connect provider"},
        address=issuer(ports),
        check_ready=lambda: _answers(ports.oidc_provider),
    )


def id_token(issuer: str, audience: str, person: str) -> str:
    """Log a person in, as a page would (OpenID Connect Core 1.0, 3.1), and return the id token.

    Raises LoginFailedError.
    """
    client = {"client_id": audience, "redirect_uri": _REDIRECT}
    try:
        with httpx.Client(base_url=issuer, trust_env=False, timeout=20) as provider:
            asked = {"response_type": "code", "scope": _SCOPE, **client}
            answer = provider.post("/oauth2/authorize", params=asked, data={"sub": person})
            code = httpx.URL(answer.headers["location"]).params["code"]
            # This provider takes any secret.
            proof = {"grant_type": "authorization_code", "code": code, "client_secret": "any", **client}
            return str(provider.post("/oauth2/token", data=proof).json()["id_token"])
    except httpx.HTTPError as error:
        raise LoginFailedError(f"The provider at {issuer} does not answer. See: make logs") from error
    except (KeyError, ValueError) as error:
        raise LoginFailedError(f"The provider at {issuer} lets {person!r} not in. See: make logs") from error


def _claims(person: str, roles_claim: str) -> dict[str, Any]:
    roles: Any = [person]
    for name in reversed(roles_claim.split(".")):
        roles = {name: roles}
    return {"sub": person, "name": person.capitalize(), "email": f"{person}@sori.example", **roles}


def _answers(port: int) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/jwks")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError("the provider does not answer yet") from error
    finally:
        connection.close()
