"""Pages of other sites: what they may not change, and what is let through."""

from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gateway.web.origins import OwnOrigins
from tests.support.answers import LANGUAGES, assert_problem

FRONT = "https://front.example"
EVIL = "https://evil.example"
OWN = "https://sori.example"
SIGNED = "/webhook/analysis-complete"
WRITES = ("POST", "PUT", "PATCH", "DELETE", "BREW")


async def service(scope: Scope, receive: Receive, send: Send) -> None:
    """Says that it was reached."""
    body = await Request(scope, receive).body()
    await JSONResponse({"reached": len(body)})(scope, receive, send)


async def asked(
    headers: dict[str, str], *, method: str = "POST", path: str = "/jobs", origins: tuple[str, ...] = (FRONT,)
) -> httpx.Response:
    app: Any = OwnOrigins(service, origins, exempt=(SIGNED,))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sori.example") as client:
        return await client.request(method, path, headers=headers, content=b"abc")


FOREIGN = {
    "a form of another site": {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"},
    "the same from an old browser": {"Origin": EVIL},
    "a page without an origin": {"Origin": "null"},
    "the same, says the browser": {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    "another site without Origin": {"Sec-Fetch-Site": "cross-site"},
    "a sibling": {"Origin": "https://other.sori.example", "Sec-Fetch-Site": "same-site"},
    "our host on another port": {"Origin": "https://sori.example:8443"},
    "our name as a part": {"Origin": "https://sori.example.evil.example"},
    "our name as a user": {"Origin": "https://sori.example@evil.example"},
    "our host, but another scheme, says the browser": {"Origin": OWN, "Sec-Fetch-Site": "cross-site"},
    "a listed host with another scheme": {"Origin": "http://front.example"},
    "no address at all": {"Origin": "http://[sori.example"},
    "words that no browser sends": {"Origin": "evil", "Sec-Fetch-Site": "Same-Origins"},
}


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("page", FOREIGN)
async def test_a_page_of_another_site_changes_nothing(page: str, method: str) -> None:
    for language, accepted in LANGUAGES.items():
        answer = await asked(FOREIGN[page] | {"Accept-Language": accepted}, method=method)
        assert_problem(answer, 403, "origin_not_allowed", language)
        assert answer.headers["connection"] == "close"


WELCOME = {
    "a program": {},
    "our own page": {"Origin": OWN, "Sec-Fetch-Site": "same-origin"},
    "our own page in an old browser": {"Origin": OWN},
    "our own page behind a proxy that names another host": {
        "Origin": "https://x.example",
        "Sec-Fetch-Site": "same-origin",
    },
    "a person, by typing the address": {"Sec-Fetch-Site": "none"},
    "a listed page": {"Origin": FRONT, "Sec-Fetch-Site": "cross-site"},
    "a listed page in an old browser": {"Origin": FRONT},
}


@pytest.mark.parametrize("page", WELCOME)
async def test_programs_and_our_own_and_listed_pages_change_things(page: str) -> None:
    answer = await asked(WELCOME[page])
    assert (answer.status_code, answer.json()) == (200, {"reached": 3})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("page", FOREIGN)
async def test_what_changes_nothing_is_left_to_cors(page: str, method: str) -> None:
    assert (await asked(FOREIGN[page], method=method)).status_code == 200


@pytest.mark.parametrize("page", FOREIGN)
async def test_any_page_may_when_any_origin_is_allowed(page: str) -> None:
    assert (await asked(FOREIGN[page], origins=(FRONT, "*"))).status_code == 200


@pytest.mark.parametrize("page", FOREIGN)
async def test_what_is_signed_needs_no_origin(page: str) -> None:
    assert (await asked(FOREIGN[page], path=SIGNED)).status_code == 200
    assert (await asked(FOREIGN[page], path=f"{SIGNED}/more")).status_code == 403
