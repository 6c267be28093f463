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
from local_stack.edge import TEMPLATE, fill_in, origins, servers
from tests.support.answers import assert_problem
from tests.support.ports import free_port
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
    async def started(*services: int, cors_origins: str = ORIGIN) -> AsyncIterator[httpx.AsyncClient]:
        port = free_port()
        values = {
            "EDGE_LISTEN": f"127.0.0.1:{port}",
            "EDGE_GATEWAY_SERVERS": servers(services),
            "EDGE_NOTIFIER_SERVERS": servers(services),
            "EDGE_CORS_ORIGINS": origins(cors_origins),
        }
        text = fill_in(TEMPLATE.read_text(encoding="utf-8"), values)
        assert "proxy_read_timeout 120s" in text
        config = tmp_path / "nginx.conf"
        config.write_text(text.replace("proxy_read_timeout 120s", "proxy_read_timeout 1s"), encoding="utf-8")
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
        assert (await client.get("/edge-reconnect", headers=EVENTS)).status_code == 404
        assert (await client.get("/edge-problem")).status_code == 404
