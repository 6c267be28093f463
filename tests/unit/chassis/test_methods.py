"""HEAD, OPTIONS and Allow of an application whose routes say nothing about them."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Response
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from chassis.methods import answer_all_methods


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter(prefix="/things")

    @router.get("/{number}")
    async def read(number: int) -> dict[str, int]:
        return {"number": number}

    @router.put("/{number}")
    @router.delete("/{number}")
    async def change(number: int) -> dict[str, int]:
        return {"number": number}

    @router.get("/{number}/audio")
    async def audio(number: int) -> Response:
        return Response(b"x" * number)

    @router.head("/{number}/audio", include_in_schema=False)
    async def audio_head(number: int) -> Response:
        return Response(headers={"Content-Length": str(number), "Is-Head": "yes"})

    @router.post("/")
    async def add() -> None: ...

    app = FastAPI()
    app.include_router(router)
    app.mount("/mounted", Starlette(routes=[Route("/", lambda _: PlainTextResponse("mounted"))]))
    answer_all_methods(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as opened:
        yield opened


@pytest.mark.parametrize("path", ["/things/7", "/docs", "/openapi.json", "/things/none", "/nowhere", "/mounted/"])
async def test_head_is_answered_as_get_is_but_for_the_body(client: httpx.AsyncClient, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.headers) == (got.status_code, got.headers)
    assert head.content == b""
    assert int(head.headers["content-length"]) == len(got.content) > 0


async def test_a_route_may_answer_head_itself(client: httpx.AsyncClient) -> None:
    assert "is-head" not in (await client.get("/things/7/audio")).headers
    assert (await client.head("/things/7/audio")).headers["is-head"] == "yes"


async def test_head_is_refused_where_there_is_no_get(client: httpx.AsyncClient) -> None:
    answer = await client.head("/things/")
    assert (answer.status_code, answer.headers.get_list("allow")) == (405, ["POST, OPTIONS"])


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/things/7", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/things/7/audio", "GET, HEAD, OPTIONS"),
        ("/things/", "POST, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
async def test_all_methods_of_an_address_are_told(client: httpx.AsyncClient, path: str, allowed: str) -> None:
    refused, asked = await client.request("BREW", path), await client.options(path)
    assert (refused.status_code, refused.headers.get_list("allow")) == (405, [allowed])
    assert (asked.status_code, asked.headers.get_list("allow"), asked.content) == (204, [allowed], b"")


async def test_there_is_nothing_to_tell_of_an_unknown_address(client: httpx.AsyncClient) -> None:
    assert (await client.options("/nowhere")).status_code == 404


async def test_the_document_does_not_change(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert {path: set(calls) for path, calls in paths.items()} == {
        "/things/{number}": {"get", "put", "delete"},
        "/things/{number}/audio": {"get"},
        "/things/": {"post"},
    }
