"""Which pages of other origins may read answers, and whether with credentials."""

import httpx
import pytest
from starlette.responses import PlainTextResponse

from chassis import cors

FRONT, STRANGER = "https://front.example", "https://stranger.example"
CREDENTIALS = "access-control-allow-credentials"
ORIGIN = "access-control-allow-origin"


def client(origins: list[str]) -> httpx.AsyncClient:
    app = cors.allowing(PlainTextResponse("here"), origins, methods=["GET"], exposed=["ETag"])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_listed_origin_may_send_credentials() -> None:
    async with client([FRONT]) as asked:
        answer = await asked.get("/", headers={"Origin": FRONT, "Cookie": "a=b"})
        first = await asked.options("/", headers={"Origin": FRONT, "Access-Control-Request-Method": "GET"})
    for found in (answer, first):
        assert (found.headers[ORIGIN], found.headers[CREDENTIALS]) == (FRONT, "true")
        assert "Origin" in found.headers["vary"]


@pytest.mark.parametrize("origins", [["*"], ["*", FRONT]])
async def test_any_origin_may_read_and_send_no_credentials(origins: list[str]) -> None:
    async with client(origins) as asked:
        answer = await asked.get("/", headers={"Origin": FRONT, "Cookie": "a=b"})
    assert answer.headers[ORIGIN] == "*"
    assert CREDENTIALS not in answer.headers


@pytest.mark.parametrize("headers", [{"Origin": STRANGER}, {}])
async def test_what_is_kept_for_others_is_not_kept_for_a_listed_page(headers: dict[str, str]) -> None:
    async with client([FRONT]) as asked:
        answer = await asked.get("/", headers=headers)
    assert ORIGIN not in answer.headers
    assert "Origin" in answer.headers["vary"]
