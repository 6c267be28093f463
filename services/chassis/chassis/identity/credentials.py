"""What a request says of who it comes from (RFC 6750, section 2.1, and a cookie for browsers)."""

from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import cookie_parser

from chassis.identity.caller import InvalidCredentialError
from contracts.accounts import SESSION_COOKIE

MOST_CHARACTERS = 8192
"""The longest token that is looked at."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, and how it came."""

    token: str
    by_cookie: bool


def credential_of(headers: Iterable[tuple[bytes, bytes]]) -> Credential | None:
    """Return what the headers hold, None without any; an Authorization header wins over the cookie.

    Raises InvalidCredentialError for an Authorization header that is no bearer token, or for two of them.
    """
    bearer: str | None = None
    cookie: str | None = None
    for name, value in headers:
        if name == b"authorization":
            if bearer is not None:
                raise InvalidCredentialError("two Authorization headers")
            bearer = _bearer(value.decode("latin-1"))
        elif name == b"cookie" and SESSION_COOKIE.encode() in value:
            cookie = cookie_parser(value.decode("latin-1")).get(SESSION_COOKIE)
    token = bearer or cookie
    if not token:
        return None
    if len(token) > MOST_CHARACTERS:
        raise InvalidCredentialError("the token is too long")
    return Credential(token, by_cookie=bearer is None)


def _bearer(header: str) -> str:
    scheme, _, token = header.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token or not token.isascii():
        raise InvalidCredentialError("Authorization is no bearer token")
    return token
