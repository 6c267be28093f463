"""Tokens that Sori signs itself: sessions, and tickets for streams (JWT, RFC 7519, signed with ES256)."""

import json
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import ECKey, KeySet
from joserfc.jwt import JWTClaimsRegistry

from chassis.identity.caller import InvalidCredentialError

ISSUER = "urn:sori"
SESSION = "session"
TICKET = "ticket"
"""The audiences: what a token is for."""
ALGORITHM = "ES256"
SKEW_SECONDS = 60
MOST_KEYS = 2


class InvalidKeysError(ValueError):
    """SESSION_KEYS is not a set of one or two keys that sign with ES256."""


class OwnTokens:
    """Signs with the first key, and accepts what either signed, so that keys can be changed while tokens are out."""

    def __init__(self, keys: str) -> None:
        """Read a JWK Set (RFC 7517, section 5). InvalidKeysError when it is none, or not of one or two P-256 keys."""
        self._keys = _read(keys)

    @property
    def can_sign(self) -> bool:
        """Tell whether the first key has its private part."""
        return self._keys.keys[0].is_private

    def sign(self, audience: str, expires_at: datetime, **claims: Any) -> str:
        """Return a token with these claims. Needs the private part of the first key."""
        key = self._keys.keys[0]
        now = int(datetime.now(UTC).timestamp())
        standard = {"iss": ISSUER, "aud": audience, "iat": now, "exp": int(expires_at.timestamp())}
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, {**standard, **claims}, key, algorithms=[ALGORITHM])

    def claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return what the token says; InvalidCredentialError when it is not ours, not for this audience, or over."""
        return verified(token, self._keys, [ALGORITHM], _REGISTRIES[audience])


def verified(token: str, keys: KeySet, algorithms: list[str], registry: JWTClaimsRegistry) -> dict[str, Any]:
    """Return the claims of a token that one of the keys signed and that the registry accepts.

    Raises InvalidCredentialError.
    """
    try:
        claims = jwt.decode(token, keys, algorithms=algorithms).claims
        registry.validate(claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise InvalidCredentialError(type(error).__name__, expired=isinstance(error, ExpiredTokenError)) from None
    return claims


def _registry(audience: str, leeway: int) -> JWTClaimsRegistry:
    return JWTClaimsRegistry(
        leeway=leeway,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
    )


# A ticket lasts a minute, and no longer because of clocks.
_REGISTRIES = {SESSION: _registry(SESSION, SKEW_SECONDS), TICKET: _registry(TICKET, 0)}


def _read(text: str) -> KeySet:
    try:
        keys = [ECKey.import_key(key) for key in json.loads(text)["keys"]]
    except (JoseError, ValueError, TypeError, KeyError):
        raise InvalidKeysError("not a JWK Set of P-256 keys") from None
    if not 1 <= len(keys) <= MOST_KEYS or any(key.curve_name != "P-256" for key in keys):
        raise InvalidKeysError("one or two P-256 keys are needed")
    return KeySet(list(keys))
