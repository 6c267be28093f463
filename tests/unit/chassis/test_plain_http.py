"""A request that offers another protocol is answered in HTTP/1.1, and its body is read."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from chassis.plain_http import PlainHttp
from tests.support.answers import assert_problem
from tests.support.raw_http import Answer
from tests.support.waiting import until_true

JAVA = {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA", "Upgrade": "h2c"}
"""As Java's HttpClient offers HTTP/2 with each first request."""


async def _echo(request: Request) -> JSONResponse:
    body = (await request.body()).decode("latin-1")
    return JSONResponse(
        {"path": request.url.path, "query": request.url.query, "body": body, "x": request.headers.get("x")}
    )


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A server that says what it was sent."""
    routes = [Route("/{path:path}", _echo, methods=["GET", "POST"])]
    config = uvicorn.Config(Starlette(routes=routes), port=0, http=PlainHttp, ws="none", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until_true(lambda: server.started, "the server to start")
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


def request(body: bytes, path: str = "/a", *, chunked: bool = False, offer: dict[str, str] = JAVA) -> bytes:
    head = {**offer, "Host": "h", "X": "kept"}
    if chunked:
        head["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        head["Content-Length"] = str(len(body))
    lines = [f"POST {path}?q=1 HTTP/1.1", *(f"{name}: {head[name]}" for name in head)]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answers(port: int, parts: Sequence[bytes], count: int = 1) -> list[dict[str, str | None]]:
    """Send these bytes one after the other, and read so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    async with asyncio.timeout(10):
        for part in parts:
            writer.write(part)
            await writer.drain()
        for _ in range(count):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            assert head.startswith("http/1.1 200"), head
            length = next(line for line in head.split("\r\n") if line.startswith("content-length:"))
            found.append(json.loads(await reader.readexactly(int(length.split(":")[1]))))
    writer.close()
    return found


def said(body: bytes, path: str = "/a") -> dict[str, str | None]:
    return {"path": path, "query": "q=1", "body": body.decode("latin-1"), "x": "kept"}


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("cut", [None, 10, 100, -3], ids=["at once", "in the line", "in the head", "in the body"])
async def test_the_body_beside_an_offer_of_http_2_is_read(port: int, cut: int | None, *, chunked: bool) -> None:
    whole = request(b"hello", chunked=chunked)
    parts = [whole] if cut is None else [whole[:cut], whole[cut:]]
    assert await answers(port, parts) == [said(b"hello")]


@pytest.mark.parametrize(
    "offer",
    [
        {"Connection": "Upgrade", "Upgrade": "websocket"},
        {"Connection": "keep-alive, upgrade", "Upgrade": "TLS/1.0, HTTP/2.0"},
        {"Upgrade": "h2c", "Connection": "UPGRADE"},
    ],
)
async def test_no_offer_of_any_protocol_loses_the_body(port: int, offer: dict[str, str]) -> None:
    assert await answers(port, [request(b"hello", offer=offer)]) == [said(b"hello")]


async def test_an_offer_with_each_of_many_requests_at_once_loses_none(port: int) -> None:
    many = b"".join(request(b"%d" % number, f"/{number}", chunked=number % 2 == 0) for number in range(300))
    assert await answers(port, [many], 300) == [said(b"%d" % number, f"/{number}") for number in range(300)]


async def test_a_large_body_beside_an_offer_is_read_whole(port: int) -> None:
    body = b"x" * 3_000_000
    [answer] = await answers(port, [request(body)])
    assert answer["body"] == body.decode()


async def test_what_is_no_http_is_answered_400_all_the_same(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(b"hello") + b"\x00\x01 no http\r\n\r\n")
    async with asyncio.timeout(10):
        everything = await reader.read()
    writer.close()
    assert everything.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 400 Bad Request" in everything


@pytest.mark.parametrize(
    ("sent", "language"),
    [
        (b"FOO / HTTP/1.1\r\nHost: h\r\n\r\n", "ko"),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", "ko"),
        (b"GET / HTTP/1.1\r\nAccept-Language: en\r\nHost: h\r\nX: \x01\r\n\r\n", "en"),
        (b"GET / HTTP/1.1\r\nAccept-Language: en\r\nContent-Length: x\r\n\r\n", "en"),
    ],
    ids=["a method that nobody knows", "TLS", "a control character", "no length"],
)
async def test_what_is_no_http_gets_a_problem(port: int, sent: bytes, language: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(10):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert status == "HTTP/1.1 400 Bad Request"
    assert (headers["connection"], headers["content-length"]) == ("close", str(len(body)))
    assert_problem(Answer(400, headers, body), 400, "bad_request", language)
