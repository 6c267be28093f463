"""An OpenID Connect issuer on loopback that tests can have err in every way: its documents, its keys and its tokens."""

import asyncio
import base64
import hmac
import json
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from aiohttp import web
from joserfc import jws
from joserfc.jwk import ECKey, Key, RSAKey

AUDIENCE = "sori-tests"
CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/keys"


class Issuer:
    """What it answers can be changed at any time; `asked` is what it was asked for so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.key = _first_key()
        self.configuration: Any = {"issuer": url, "jwks_uri": url + KEYS}
        self.keys: Any = {"keys": [self.key.as_dict(private=False)]}
        self.is_away = False
        self.answers = asyncio.Event()
        """Answers wait for it; it is set unless a test clears it."""
        self.answers.set()
        self.asked: list[str] = []

    def rotate(self) -> None:
        """Sign with another key from now on, and publish that one alone."""
        self.key = RSAKey.generate_key(2048, {"kid": f"after {self.key.kid}"})
        self.keys = {"keys": [self.key.as_dict(private=False)]}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token for `somebody`, with these changes; None takes one away."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 600}
        return {name: value for name, value in {**good, **changed}.items() if value is not None}

    def token(self, **changed: Any) -> str:
        """A token with these changes to its claims."""
        return signed(self.claims(**changed), self.key)

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.asked.append(request.path)
        await self.answers.wait()
        if self.is_away:
            raise web.HTTPServiceUnavailable
        found = {CONFIGURATION: self.configuration, KEYS: self.keys}[request.path]
        return web.Response(text=found) if isinstance(found, str) else web.json_response(found)


@cache
def _first_key() -> RSAKey:
    # Making one takes a while.
    return RSAKey.generate_key(2048, {"kid": "first"})


def signed(claims: dict[str, Any], key: Key, alg: str = "RS256", **header: Any) -> str:
    """A token that this key signed. A header field that is None is left out."""
    named = {
        name: value for name, value in {"alg": alg, "typ": "JWT", "kid": key.kid, **header}.items() if value is not None
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns of algorithms that are used here on purpose
        return jws.serialize_compact(named, json.dumps(claims), key, [alg])


def signed_with_public_key(claims: dict[str, Any], key: RSAKey | ECKey) -> str:
    """A token with an HMAC whose secret is a public key, which verifiers accept that believe its own algorithm."""
    header = {"alg": "HS256", "typ": "JWT", "kid": key.kid}
    said = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    return f"{said}.{_base64(hmac.digest(key.as_pem(private=False), said.encode(), 'sha256'))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def session_keys(*keys: ECKey, private: bool = True) -> str:
    """SESSION_KEYS of these keys."""
    return '{"keys": [' + ",".join(json.dumps(key.as_dict(private=private)) for key in keys) + "]}"


@asynccontextmanager
async def running_issuer() -> AsyncIterator[Issuer]:
    """An issuer that answers until the end of the block."""
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0)
    found: list[Issuer] = []

    async def answer(request: web.Request) -> web.Response:
        return await found[0].answer(request)

    app.router.add_get(CONFIGURATION, answer)
    app.router.add_get(KEYS, answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    found.append(Issuer(f"http://{host}:{port}"))
    try:
        yield found[0]
    finally:
        found[0].answers.set()
        await runner.cleanup()
