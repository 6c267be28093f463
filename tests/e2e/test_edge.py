"""The edge by itself: what it answers when a service is away or silent, to programs and to a browser's EventSource."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from contracts import topology
from local_stack.edge import TEMPLATE, fill_in, hosts, origins, servers, webhook_limits
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.ports import free_port
from tests.support.raw_http import raw_connection
from tests.support.waiting import until

ORIGIN = "https://front.example"
PATH = "/tokens/analysis-progress/73732cad-5149-44d4-a954-e9c4781635c3"
EVENTS = {"Accept": "text/event-stream", "Origin": ORIGIN}
"""What an EventSource of another origin's page sends."""

Edge = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    """Start nginx as the stack does, before services on these ports; it waits a second for an answer."""

    @asynccontextmanager
    async def started(
        *services: int, cors_origins: str = ORIGIN, edge_hosts: str = "", most_of_an_address: int = 11500
    ) -> AsyncIterator[httpx.AsyncClient]:
        port = free_port()
        values = {
            "EDGE_LISTEN": f"127.0.0.1:{port}",
            "EDGE_GATEWAY_SERVERS": servers(services),
            "EDGE_NOTIFIER_SERVERS": servers(services),
            "EDGE_CORS_ORIGINS": origins(cors_origins),
            "EDGE_HOSTS": hosts(edge_hosts, ""),
            **webhook_limits("1000"),
        }
        text = fill_in(TEMPLATE.read_text(encoding="utf-8"), values)
        for usual, here in {
            "proxy_read_timeout 120s": "proxy_read_timeout 1s",
            "limit_conn addresses 11500": f"limit_conn addresses {most_of_an_address}",
        }.items():
            assert text.count(usual) == 1
            text = text.replace(usual, here)
        config = tmp_path / "nginx.conf"
        config.write_text(text, encoding="utf-8")
        command = ("nginx", "-p", str(tmp_path), "-c", str(config), "-g", "daemon off; master_process off;")
        nginx = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                await until(lambda: _listens(client), "the edge")
                yield client
        finally:
            nginx.terminate()
            await nginx.wait()

    return started


async def _listens(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        await client.get("/health")
        return True
    return False


@asynccontextmanager
async def service(answer: bytes | None) -> AsyncIterator[tuple[int, list[str]]]:
    """A service that answers every request like this, or never; gives its port, and the requests as they come."""
    requests: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if answer is not None:
                    writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()


def reconnection(answer: httpx.Response) -> int:
    """The milliseconds after which a browser is told to come back, by an answer that is nothing else."""
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-credentials"] == "true"
    found = re.fullmatch(r"retry: (\d+)\n\n", answer.text)
    assert found, answer.text
    return int(found[1])


@pytest.mark.parametrize(
    ("cors_origins", "asking", "origin", "credentials"),
    [
        (ORIGIN, ORIGIN, ORIGIN, "true"),
        (ORIGIN, "https://stranger.example", None, None),
        (ORIGIN, None, None, None),
        ("*", ORIGIN, "*", None),
    ],
)
async def test_the_edges_own_errors_can_be_read_by_who_may_read_the_services_answers(
    edge: Edge, cors_origins: str, asking: str | None, origin: str | None, credentials: str | None
) -> None:
    headers = {} if asking is None else {"Origin": asking}
    async with edge(free_port(), cors_origins=cors_origins) as client:
        answer = await client.get("/jobs", headers=headers)
    assert answer.status_code == 502
    assert answer.headers.get("access-control-allow-origin") == origin
    assert answer.headers.get("access-control-allow-credentials") == credentials
    assert "Origin" in answer.headers["vary"]


async def test_a_browser_whose_notifier_is_away_is_told_when_to_come_back(edge: Edge) -> None:
    async with edge(free_port()) as client:
        waits = [reconnection(await client.get(PATH, headers=EVENTS)) for _ in range(40)]
    assert 1000 <= min(waits) < max(waits) < 4000
    assert len(set(waits)) > 20, "not all come back at once"


async def test_a_browser_whose_notifier_is_silent_is_told_when_to_come_back(edge: Edge) -> None:
    async with service(None) as (port, _), edge(port) as client:
        assert reconnection(await client.get(PATH, headers=EVENTS))


@pytest.mark.parametrize("accept", ["*/*", "application/json"])
async def test_a_program_whose_notifier_is_away_gets_a_problem(edge: Edge, accept: str) -> None:
    async with edge(free_port()) as client:
        answer = await client.get(PATH, headers={"Accept": accept, "Accept-Language": "en"})
    assert_problem(answer, 502, "upstream_unavailable", "en")
    assert int(answer.headers["retry-after"]) > 0


async def test_a_program_whose_notifier_is_silent_gets_a_problem(edge: Edge) -> None:
    async with service(None) as (port, _), edge(port) as client:
        answer = await client.get(PATH, headers={"Accept-Language": "en"})
    assert_problem(answer, 504, "upstream_timeout", "en")


async def test_what_is_no_stream_is_a_problem_to_a_browser_too(edge: Edge) -> None:
    async with edge(free_port()) as client:
        answer = await client.get("/tokens/analysis-result/x", headers={**EVENTS, "Accept-Language": "en"})
    assert_problem(answer, 502, "upstream_unavailable", "en")


@pytest.mark.parametrize("headers", [EVENTS, {}], ids=["browser", "program"])
@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "200 OK"])
async def test_what_a_notifier_answers_is_passed_on_as_it_is(edge: Edge, headers: dict[str, str], status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nContent-Type: text/x-own\r\nContent-Length: 3\r\n\r\nown".encode()
    async with service(answer) as (port, requests), edge(port) as client:
        passed_on = await client.get(PATH, headers={**headers, "Last-Event-ID": "7"})
    assert (passed_on.status_code, passed_on.text) == (int(status[:3]), "own")
    assert passed_on.headers["content-type"] == "text/x-own"
    asked = requests[-1].lower()
    assert asked.startswith(f"get {PATH} http/1.1\r\n")
    assert "last-event-id: 7\r\n" in asked
    assert "x-forwarded-for: 127.0.0.1\r\n" in asked


def answering(status: str, body: str = "own") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/x-own\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


FULL = answering("503 Service Unavailable", "full")


@pytest.mark.parametrize("headers", [EVENTS, {}], ids=["browser", "program"])
async def test_a_listener_whose_notifier_is_full_gets_the_next_one(edge: Edge, headers: dict[str, str]) -> None:
    async with service(FULL) as (full, asked), service(answering("200 OK")) as (other, _), edge(full, other) as client:
        answers = [await client.get(progress_of(partition), headers=headers) for partition in topology.PARTITIONS]
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, "own")}
    assert 0 < len(asked) < len(answers), "some were sent to it first, but not all"


async def test_a_browser_all_of_whose_notifiers_are_full_is_told_when_to_come_back(edge: Edge) -> None:
    async with service(FULL) as (one, asked), service(FULL) as (two, also), edge(one, two) as client:
        assert reconnection(await client.get(PATH, headers=EVENTS))
    assert [len([one for one in requests if PATH in one]) for requests in (asked, also)] == [1, 1]


async def test_a_program_all_of_whose_notifiers_are_full_gets_the_last_ones_answer(edge: Edge) -> None:
    async with service(FULL) as (one, asked), service(FULL) as (two, also), edge(one, two) as client:
        answer = await client.get(PATH)
    assert (answer.status_code, answer.text) == (503, "full")
    assert [len([one for one in requests if PATH in one]) for requests in (asked, also)] == [1, 1]


async def test_listeners_of_one_partition_go_to_one_notifier_and_partitions_to_all(edge: Edge) -> None:
    async with AsyncExitStack() as stack:
        notifiers = [await stack.enter_async_context(service(answering("200 OK", str(n)))) for n in range(4)]
        client = await stack.enter_async_context(edge(*(port for port, _ in notifiers)))
        serving = {
            partition: {(await client.get(progress_of(partition))).text for _ in range(3)}
            for partition in topology.PARTITIONS
        }
        again = [(await client.get(f"{progress_of('a7')}{rest}")).text for rest in ("/", "?lastEventId=3")]
    assert {len(those) for those in serving.values()} == {1}
    assert set(again) == serving["a7"]
    shares = Counter(one for those in serving.values() for one in those)
    assert min(shares[str(n)] for n in range(4)) > len(topology.PARTITIONS) / 4 / 2, shares


def progress_of(partition: str) -> str:
    """The address of the stream of a job in this partition."""
    return f"/tokens/analysis-progress/{partition}{PATH[-34:]}"


async def test_the_edges_own_answers_are_at_no_address_that_can_be_asked_for(edge: Edge) -> None:
    async with edge(free_port()) as client:
        for path in ("/edge-reconnect", "/edge-problem", "/edge-signature"):
            assert_problem(await client.get(path, headers=EVENTS), 404, "not_found")


@pytest.mark.parametrize(
    ("asked", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:1", True),
        ("[::1]:8000", True),
        ("sori.example", True),
        ("a.b.other.example:443", True),
        ("evil.example", False),
        ("other.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
    ],
)
async def test_the_edge_says_nothing_to_whoever_asks_for_another_host(edge: Edge, asked: str, *, is_ours: bool) -> None:
    async with (
        service(answering("200 OK")) as (port, requests),
        edge(port, edge_hosts="sori.example, *.other.example") as client,
    ):
        requests.clear()
        if is_ours:
            assert (await client.get("/jobs", headers={"Host": asked})).text == "own"
        else:
            with pytest.raises(httpx.TransportError):
                await client.get("/jobs", headers={"Host": asked})
            assert requests == []


async def test_the_edge_answers_to_any_host_when_it_is_told_so(edge: Edge) -> None:
    async with service(answering("200 OK")) as (port, _), edge(port, edge_hosts="*") as client:
        assert (await client.get("/jobs", headers={"Host": "any.example"})).text == "own"


BROKEN = {
    "no host": ("GET / HTTP/1.1", "", 400, "bad_request"),
    "no length": ("POST / HTTP/1.1", "Host: localhost\r\nContent-Length: x\r\n", 400, "bad_request"),
    "no address": ("GET /%00 HTTP/1.1", "Host: localhost\r\n", 400, "bad_request"),
    "a long address": (f"GET /{'a' * 20_000} HTTP/1.1", "Host: localhost\r\n", 414, "uri_too_long"),
    "long headers": ("GET / HTTP/1.1", f"Host: localhost\r\nA: {'a' * 20_000}\r\n", 431, "headers_too_large"),
    "gzip in transfer": (
        "POST / HTTP/1.1",
        "Host: localhost\r\nTransfer-Encoding: gzip\r\n",
        *(501, "not_implemented"),
    ),
    "another version": ("GET / HTTP/9.1", "Host: localhost\r\n", 505, "http_version_unsupported"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_nginx_refuses_by_itself_is_a_problem(edge: Edge, name: str) -> None:
    line, headers, status, code = BROKEN[name]
    async with edge(free_port()) as client, raw_connection(str(client.base_url)) as connection:
        await connection.send(f"{line}\r\nAccept-Language: en\r\n{headers}\r\n".encode())
        answer = await connection.answer()
    # When the line is wrong, no header is read.
    assert_problem(answer, status, code, "en" if line.endswith("/ HTTP/1.1") else "ko")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/jobs", PATH, "/webhook/analysis-complete"])
@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "PROPFIND", "get"])
async def test_a_method_that_no_address_takes_is_refused_by_the_service_that_has_it(
    edge: Edge, method: str, path: str
) -> None:
    refusal = b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Length: 3\r\n\r\nown"
    async with service(refusal) as (port, requests), edge(port) as client:
        requests.clear()
        async with raw_connection(str(client.base_url)) as connection:
            await connection.begin(path, {"Content-Length": "5"}, method=method)
            await connection.send(b"hello")
            answer = await connection.answer()
    # nginx itself finds some of them too odd to read.
    if answer.status == 400:
        assert_problem(answer, 400, "bad_request")
    else:
        assert (answer.status, answer.headers["allow"], answer.body) == (405, "GET", b"own")
        assert [request.split()[:2] for request in requests] == [["TRACE", path]]


@pytest.mark.parametrize("headers", [EVENTS, {}], ids=["browser", "program"])
async def test_one_address_cannot_take_all_connections(edge: Edge, headers: dict[str, str]) -> None:
    async with service(None) as (port, requests), edge(port, most_of_an_address=3) as client:
        requests.clear()
        waiting = [asyncio.create_task(client.get("/jobs")) for _ in range(3)]
        await until(lambda: _count(requests, 3), "the first three")
        for path in ("/jobs", PATH, "/webhook/analysis-complete"):
            answer = await client.get(path, headers={**headers, "Accept-Language": "en"})
            if headers and path == PATH:
                assert reconnection(answer)
            else:
                assert_problem(answer, 429, "too_many_connections", "en")
                assert int(answer.headers["retry-after"]) > 0
        await asyncio.gather(*waiting)


async def _count(requests: list[str], count: int) -> bool:
    return len(requests) >= count


HOOK = "/tokens/webhook/analysis-complete?job_id=1&attempt=1&signature="
BUFFERED_BYTES = int(webhook_limits("1000")["EDGE_WEBHOOK_BYTES"])


@asynccontextmanager
async def gateway(calls: list[tuple[str, int]], ends: bytes | None = None) -> AsyncIterator[int]:
    """A gateway for which "good" is the one signature; notes each call, and the bytes of its body.

    With `ends`, that is all it says to a signed call, and it closes the connection.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = re.search(r"content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                asks, signed = head.startswith("get /webhook/signature?"), "signature=good" in head
                calls.append(("asked" if asks else "called", len(body)))
                if ends is not None and not asks:
                    writer.write(ends)
                    break
                status = "401 Unauthorized" if not signed else "204 No Content" if asks else "200 OK"
                writer.write(f"HTTP/1.1 {status}\r\n{'' if asks and signed else 'Content-Length: 0'}\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def in_chunks(size: int) -> AsyncIterator[bytes]:
    for begin in range(0, size, 10_000):
        yield b"x" * min(10_000, size - begin)


@pytest.mark.parametrize("sent", [b"", b"{}", b"x" * (BUFFERED_BYTES - 1)], ids=["nothing", "little", "much"])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_signed_webhook_is_taken_in_whole(edge: Edge, sent: bytes, *, chunked: bool) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(port, port) as client:
        calls.clear()
        answer = await client.post(f"{HOOK}good", content=in_chunks(len(sent)) if chunked else sent)
    assert answer.status_code == 200
    assert calls == [("asked", 0), ("called", len(sent))]


@pytest.mark.parametrize("size", [2, BUFFERED_BYTES - 1, 3 * BUFFERED_BYTES])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
@pytest.mark.parametrize("signature", ["bad", ""])
async def test_the_body_of_a_webhook_without_a_signature_is_not_taken_in(
    edge: Edge, size: int, signature: str, *, chunked: bool
) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(port) as client:
        calls.clear()
        for language, accepted in LANGUAGES.items():
            sent = in_chunks(size) if chunked else b"x" * size
            headers = {"Origin": ORIGIN, "Accept-Language": accepted}
            answer = await client.post(HOOK + signature, content=sent, headers=headers)
            assert_problem(answer, 401, "signature_invalid", language)
            assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert calls == [("asked", 0)] * 2


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("POST", f"{HOOK}bad"),
        ("POST", "/webhook/analysis-complete"),
        ("TRACE", "/jobs"),
        ("FOO", f"{HOOK}bad"),
        ("DELETE", f"{HOOK}good"),
    ],
)
@pytest.mark.parametrize("size", [BUFFERED_BYTES - 1, 1 << 30, None], ids=["much", "too much", "in chunks"])
async def test_what_is_not_signed_is_answered_before_its_body_has_come(
    edge: Edge, line: str, path: str, size: int | None
) -> None:
    """So nothing of it is kept, neither in memory nor on disk."""
    refusing = service(answering("401 Unauthorized"))
    async with refusing as (port, _), edge(port) as client, raw_connection(str(client.base_url)) as connection:
        length = {"Transfer-Encoding": "chunked"} if size is None else {"Content-Length": str(size)}
        await connection.begin(path, length, method=line)
        with suppress(ConnectionError):
            for _ in range(3):
                await (connection.send_chunk if size is None else connection.send)(b"x" * (BUFFERED_BYTES // 4))
        assert (await connection.answer()).status in {401, 413}


async def test_a_crowd_that_sends_gigabytes_unsigned_leaves_nothing_in_memory_or_on_disk(
    edge: Edge, tmp_path: Path
) -> None:
    async with service(answering("401 Unauthorized")) as (port, _), edge(port) as client, AsyncExitStack() as stack:
        process = Path("/proc") / (tmp_path / "nginx.pid").read_text().strip()
        crowd = [await stack.enter_async_context(raw_connection(str(client.base_url))) for _ in range(60)]
        for number, connection in enumerate(crowd):
            length = {"Content-Length": str(1 << 30)} if number % 2 else {"Transfer-Encoding": "chunked"}
            await connection.begin(f"{HOOK}bad", length)
        for number, connection in enumerate(crowd):
            send = connection.send if number % 2 else connection.send_chunk
            for _ in range(16):
                await send(b"x" * 65_536)
        kept = [str(file.readlink()) for file in (process / "fd").iterdir()]
        resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
        assert resident
        assert (int(resident[1]) < 40_000, [name for name in kept if "temp-" in name]) == (True, []), resident[0]
        assert {(await connection.answer()).status for connection in crowd} == {401}


async def test_a_signed_webhook_that_is_too_large_to_buffer_goes_to_a_gateway_as_it_comes(edge: Edge) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(port) as client:
        calls.clear()
        assert (await client.post(f"{HOOK}good", content=b"x" * (BUFFERED_BYTES + 1))).status_code == 200
    assert calls == [("asked", 0), ("called", BUFFERED_BYTES + 1)]


@pytest.mark.parametrize(("language", "accepted"), LANGUAGES.items())
async def test_one_that_does_not_say_how_large_it_is_ends_at_the_limit(
    edge: Edge, language: str, accepted: str
) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(port) as client:
        calls.clear()
        headers = {"Origin": ORIGIN, "Accept-Language": accepted}
        answer = await client.post(f"{HOOK}good", content=in_chunks(2 * BUFFERED_BYTES), headers=headers)
    assert_problem(answer, 413, "body_too_large", language)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert calls == [("asked", 0)]


async def test_a_webhook_goes_to_the_next_gateway_when_one_is_away(edge: Edge) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(free_port(), port, free_port()) as client:
        calls.clear()
        for _ in range(6):
            assert (await client.post(f"{HOOK}good", content=b"{}")).status_code == 200
    assert calls == [("asked", 0), ("called", 2)] * 6


@pytest.mark.parametrize("ends", [b"", FULL], ids=["dies", "stops"])
async def test_a_webhook_goes_to_the_next_gateway_when_one_ends_that_has_found_it_signed(
    edge: Edge, ends: bytes
) -> None:
    ending: list[tuple[str, int]] = []
    other: list[tuple[str, int]] = []
    async with gateway(ending, ends) as one, gateway(other) as two, edge(one, two) as client:
        sent = b"x" * (BUFFERED_BYTES - 1)
        for _ in range(10):
            assert (await client.post(f"{HOOK}good", content=sent)).status_code == 200
    assert ("called", len(sent)) in ending
    assert other.count(("called", len(sent))) == 10


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_what_is_no_call_at_a_webhooks_address_is_the_gateways_to_answer(edge: Edge, method: str) -> None:
    calls: list[tuple[str, int]] = []
    async with gateway(calls) as port, edge(port) as client:
        calls.clear()
        assert (await client.request(method, f"{HOOK}good")).status_code == 200
    assert calls == [("called", 0)]


@pytest.mark.parametrize("size", [2, BUFFERED_BYTES + 1])
async def test_a_webhook_that_meets_no_gateway_is_told_to_come_back(edge: Edge, size: int) -> None:
    async with edge(free_port()) as client:
        answer = await client.post(f"{HOOK}good", content=b"x" * size, headers={"Accept-Language": "en"})
    assert_problem(answer, 502, "upstream_unavailable", "en")
    assert int(answer.headers["retry-after"]) > 0


async def test_nobody_asks_for_the_check_of_a_signature_from_outside(edge: Edge) -> None:
    async with service(answering("404 Not Found")) as (port, requests), edge(port) as client:
        requests.clear()
        for path in ("/webhook/signature?signature=good", "/webhook/signature/"):
            assert (await client.get(path)).status_code == 404
    assert all(request.startswith("GET /not-found") for request in requests)
