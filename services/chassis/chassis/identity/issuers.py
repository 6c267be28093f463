"""Issuers of identity: their keys, fetched and kept, and what their tokens say (OpenID Connect Core 1.0, 3.1.3.7)."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from chassis.errors import AwayError
from chassis.identity.caller import InvalidCredentialError
from chassis.identity.own_tokens import SKEW_SECONDS, verified
from contracts.accounts import person
from contracts.rights import Role, roles_named

log = structlog.get_logger()

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Asymmetric ones alone: with the others, whoever can check a token could make one."""
FRESH_SECONDS = 600.0
"""How long keys are used before they are fetched again; meanwhile and while the issuer is away, the old ones serve."""
BETWEEN_FETCHES_SECONDS = 10.0
"""An unknown key id has the keys fetched at once, but not more often than this."""
FETCH_SECONDS = 5.0
MOST_BYTES = 256 * 1024
GOOGLE = "https://accounts.google.com"
Key = RSAKey | ECKey | OKPKey
_KINDS: dict[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
"""The kinds of keys that have a public part, by `kty` (RFC 7518, section 6.1; RFC 8037, section 2)."""
_ALIASES = {GOOGLE: "accounts.google.com"}
"""Google's id tokens may name their issuer without its scheme (Google's documentation of OpenID Connect)."""


@dataclass(frozen=True)
class Person:
    """What an issuer's token says of a person."""

    owner: str
    roles: frozenset[Role]
    expires_at: datetime
    claims: Mapping[str, Any]


class Issuers:
    """The issuers whose tokens count, when they are for one of `audiences`.

    `roles_claim` is a claim's name, or a path, `a.b`. Names may be addresses, with dots that are no path.
    """

    def __init__(self, issuers: Sequence[str], audiences: Sequence[str], roles_claim: str) -> None:
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False)
        self._roles_claim = roles_claim
        self._by_name: dict[str, _Issuer] = {}
        for url in issuers:
            names = [url, *([_ALIASES[url]] if url in _ALIASES else [])]
            issuer = _Issuer(url, names, audiences, self._client)
            self._by_name |= dict.fromkeys(names, issuer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def person(self, token: str) -> Person:
        """Return whom the token is about.

        Raises InvalidCredentialError, and AwayError when a key that may be the issuer's cannot be fetched.
        """
        header, unproven = peeked(token)
        issuer = self._by_name.get(str(unproven.get("iss")))
        if issuer is None:
            raise InvalidCredentialError("unknown issuer")
        key = await issuer.key(header)
        claims = verified(token, KeySet([key]), ALGORITHMS, issuer.registry)
        try:
            owner, expires_at = person(issuer.url, claims["sub"]), datetime.fromtimestamp(claims["exp"], UTC)
        except (ValueError, OverflowError):  # a lone surrogate in the name, a moment outside the calendar
            raise InvalidCredentialError("claims out of range") from None
        return Person(owner, roles_named(_names(claims, self._roles_claim)), expires_at, claims)


def peeked(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a token's header and claims unproven; InvalidCredentialError when it has none."""
    parts = token.split(".")
    try:
        header, claims = (json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2])
    except (ValueError, RecursionError):
        raise InvalidCredentialError("no JWT") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise InvalidCredentialError("no JWT")
    return header, claims


class _Issuer:
    """One issuer's keys."""

    def __init__(self, url: str, names: list[str], audiences: Sequence[str], client: httpx.AsyncClient) -> None:
        self.url = url
        self.registry = JWTClaimsRegistry(
            leeway=SKEW_SECONDS,
            iss={"essential": True, "values": names},
            aud={"essential": True, "values": list(audiences)},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._client = client
        self._keys: list[Key] = []
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure: str | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, header: Mapping[str, Any]) -> Key:
        """Return the key that a token's header names; see `Issuers.person` for what is raised."""
        if header.get("alg") not in ALGORITHMS:
            raise InvalidCredentialError("not signed with an asymmetric algorithm")
        key = self._known(header)
        is_fresh = time.monotonic() - self._fetched_at < FRESH_SECONDS
        if key is None or not is_fresh:
            fetching = self._fetch_soon()
            if key is None and fetching is not None:
                await asyncio.shield(fetching)
                key = self._known(header)
        if key is not None:
            return key
        if self._failure is not None:
            raise AwayError(f"the issuer {self.url}", self._failure)
        raise InvalidCredentialError("unknown key")

    def _known(self, header: Mapping[str, Any]) -> Key | None:
        kid = header.get("kid")
        fitting = [key for key in self._keys if _fits(key, header["alg"])]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)

    def _fetch_soon(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way or begins now; None when the last one was a moment ago."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried_at < BETWEEN_FETCHES_SECONDS:
                return None
            self._tried_at = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                found = await fetched(self._client, self.url.rstrip("/") + "/.well-known/openid-configuration")
                if found.get("issuer") != self.url:
                    raise ValueError("the configuration names another issuer")  # noqa: TRY301 - one place logs
                keys = await fetched(self._client, _secure(str(found["jwks_uri"]), self.url))
            self._keys = [key for data in keys["keys"] if (key := _imported(data)) is not None]
            self._fetched_at, self._failure = time.monotonic(), None
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys that are known serve on
            self._failure = type(error).__name__
            log.warning("issuer's keys not fetched", issuer=self.url, reason=self._failure)


async def fetched(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return the JSON document at this address; raises whatever goes wrong."""
    async with client.stream("GET", url, headers={"Accept": "application/json"}) as response:
        response.raise_for_status()
        body = b""
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MOST_BYTES:
                raise ValueError("the document is too large")
    document: dict[str, Any] = json.loads(body)
    return document


def _secure(url: str, issuer: str) -> str:
    if not url.startswith("https://") and issuer.startswith("https://"):
        raise ValueError("the keys of a secure issuer have an insecure address")
    return url


def _imported(data: Any) -> Key | None:
    """Return a public key that signatures may be checked with; None for any other, such as one for encryption."""
    try:
        return _KINDS[data["kty"]].import_key(data) if data.get("use", "sig") == "sig" else None
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _fits(key: Key, algorithm: str) -> bool:
    kind = ECKey if algorithm.startswith("ES") else OKPKey if algorithm.startswith("Ed") else RSAKey
    return isinstance(key, kind) and key.alg in {None, algorithm}


def _names(claims: Mapping[str, Any], claim: str) -> list[str]:
    """Return the names in a claim: a list, or one text with spaces between them."""
    found: Any = claims
    for name in [claim] if claim in claims else claim.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    names = found.split() if isinstance(found, str) else found
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
