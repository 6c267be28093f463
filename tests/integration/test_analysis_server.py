"""The analysis server as a program: real S3 in front of it, a real webhook behind it, its processes and its end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
import psutil
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.support.recordings import speech, wav

SENTENCE = "The quick brown fox jumps over the lazy dog."
BUCKET = "recordings"
LIMIT_S = 30
KEYS = ("key", "a-secret-of-the-test")

Found = TypeVar("Found")


async def until(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Look again and again until there is something to be found; fails after LIMIT_S."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if found := await look():
                    return found
            await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Store:
    """An S3 server over a folder."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, key: str, content: bytes) -> str:
        client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            region_name="us-east-1",
        )
        client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"


@contextlib.asynccontextmanager
async def running_store(folder: Path) -> AsyncIterator[Store]:
    (folder / BUCKET).mkdir(parents=True)
    port = free_port()
    rclone = Path(sys.executable).with_name("rclone")
    command = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 - starts in no time
    try:
        async with httpx.AsyncClient() as client:
            await until(lambda: client.get(f"http://127.0.0.1:{port}/"))
        yield Store(port, process)
    finally:
        process.kill()
        process.wait()


@dataclass
class Receiver:
    """A webhook that keeps what it is sent, in order, and answers each path with the statuses it was told to."""

    port: int = field(default_factory=free_port)
    received: asyncio.Queue[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=asyncio.Queue)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        target = f"{scope['raw_path'].decode()}?{scope['query_string'].decode()}"
        await self.received.put((target, json.loads(body), headers))
        if scope["path"].startswith("/gated"):
            await self.gate.wait()
        statuses = self.statuses.get(scope["path"], [])
        await send({"type": "http.response.start", "status": statuses.pop(0) if statuses else 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def call(self) -> tuple[str, dict[str, Any], dict[str, str]]:
        return await asyncio.wait_for(self.received.get(), LIMIT_S)

    async def outcome(self) -> dict[str, Any]:
        return (await self.call())[1]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    config = uvicorn.Config(made, host="127.0.0.1", port=made.port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: _is(server.started))
    yield made
    made.gate.set()
    server.should_exit = True
    await serving


async def _is(fact: bool) -> bool:
    return fact


@dataclass
class Program:
    """A running analysis server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    async def analyse(self, audio: str, webhook: str, **more: str) -> httpx.Response:
        form = {"s3_audio_url": audio, "webhook_url": webhook, "video_id": "token-1"} | more
        async with httpx.AsyncClient(timeout=LIMIT_S) as client:
            return await client.post(f"{self.url}/analyze-voice", data=form)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=LIMIT_S) as client:
            return await client.get(f"{self.url}{path}")

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def logged(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        async def find() -> list[dict[str, Any]] | None:
            found = [line for line in self.lines() if line["event"] == event]
            return found if len(found) >= times else None

        return await until(find)


@contextlib.asynccontextmanager
async def running(store: Store, folder: Path, **settings: str) -> AsyncIterator[Program]:
    port, log = free_port(), folder / "log"
    env = {
        "PATH": os.environ["PATH"],
        "PORT": str(port),
        "S3_BUCKET_NAME": BUCKET,
        "S3_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": KEYS[0],
        "AWS_SECRET_ACCESS_KEY": KEYS[1],
        "WORKERS": "1",
    }
    with log.open("wb") as out:
        command = [sys.executable, "-m", "analysis_server"]
        process = subprocess.Popen(command, env=env | settings, stdout=out, stderr=subprocess.STDOUT)  # noqa: ASYNC220 - as above
    program = Program(f"http://127.0.0.1:{port}", process, log)
    try:
        await until(lambda: program.get("/health/live"))
        yield program
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with running_store(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
async def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    async with running(store, tmp_path_factory.mktemp("server"), WEBHOOK_ATTEMPTS="3") as made:
        yield made


async def test_a_recording_comes_back_as_its_analysis(store: Store, server: Program, receiver: Receiver) -> None:
    audio = store.put("audio/한 글?#%.wav", speech(SENTENCE, voice="en-us"))
    script = {"script_id": 7, "start_seconds": 0, "end_seconds": 2.5, "script": SENTENCE, "translation": "여우"}
    answer = await server.analyse(
        audio, receiver.address("/hook?a=1&signature=s%20x"), scripts=json.dumps([script]), s3_pitch_url=""
    )
    assert answer.status_code == 200
    assert answer.json().keys() == {"job_id", "status"}
    assert answer.json()["status"] == "processing"
    target, body, headers = await receiver.call()
    assert target == "/hook?a=1&signature=s%20x"
    assert headers["content-type"] == "application/json"
    result = body.pop("analysis_results")
    assert body == {
        "job_id": answer.json()["job_id"],
        "status": "completed",
        "video_id": "token-1",
        "s3_audio_url": audio,
    }
    assert [word["word"] for word in result["words"]] == SENTENCE.rstrip(".").split()
    assert result["warnings"] == []
    assert receiver.received.empty()


@pytest.mark.parametrize(
    "failing",
    [
        ("text.wav", b"not a recording", "The file is not audio in a format that can be decoded."),
        ("missing.wav", None, "There is no recording at the given S3 address."),
    ],
)
async def test_a_job_that_fails_says_why_in_a_sentence(
    store: Store, server: Program, receiver: Receiver, failing: tuple[str, bytes | None, str]
) -> None:
    key, content, sentence = failing
    audio = f"s3://{BUCKET}/{key}" if content is None else store.put(key, content)
    accepted = await server.analyse(audio, receiver.address("/hook"))
    assert await receiver.outcome() == {"job_id": accepted.json()["job_id"], "status": "failed", "error": sentence}


async def test_a_webhook_in_trouble_is_called_again(store: Store, server: Program, receiver: Receiver) -> None:
    receiver.statuses["/flaky"] = [503, 429]
    await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/flaky"))
    bodies = [await receiver.outcome() for _ in range(3)]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["status"] == "completed"


async def test_a_webhook_that_refuses_is_not_called_again(store: Store, server: Program, receiver: Receiver) -> None:
    receiver.statuses["/refusing"] = [401]
    accepted = await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/refusing"))
    await receiver.call()
    (given_up,) = await server.logged("webhook-given-up")
    assert given_up["job_id"] == accepted.json()["job_id"]
    assert given_up["reason"] == "status 401"
    assert receiver.received.empty()


async def test_the_trace_goes_on_in_the_webhook_and_in_the_log(
    store: Store, server: Program, receiver: Receiver
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    form = {
        "s3_audio_url": store.put("a.wav", speech(SENTENCE)),
        "webhook_url": receiver.address("/t"),
        "video_id": "v",
    }
    header = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with httpx.AsyncClient() as client:
        accepted = await client.post(f"{server.url}/analyze-voice", data=form, headers=header)
    assert (await receiver.call())[2]["traceparent"] == header["traceparent"]
    mine = [line for line in server.lines() if line.get("job_id") == accepted.json()["job_id"]]
    assert trace in {line.get("trace_id") for line in mine}


async def test_every_log_line_is_json_and_none_has_the_webhooks_query(
    store: Store, server: Program, receiver: Receiver
) -> None:
    receiver.statuses["/logged"] = [500, 500, 500]
    secret = "signature=0123456789abcdef"
    await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address(f"/logged?{secret}"))
    for _ in range(3):
        await receiver.call()
    await until(lambda: _is(any(line.get("reason") == "status 500" for line in server.lines())))
    assert secret not in server.log.read_text()
    for line in server.lines():
        assert list(line)[:4] == ["time", "level", "service", "event"]
        assert line["service"] == "analysis-server"


async def test_health_says_what_is_up(server: Program) -> None:
    ready = await server.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"storage": "up", "workers": "up"}
    assert (await server.get("/health")).json()["jobs_in_hand"] == 0
    assert "/analyze-voice" in (await server.get("/openapi.json")).json()["paths"]


async def test_a_full_server_says_busy_and_when_to_come_back(store: Store, receiver: Receiver, tmp_path: Path) -> None:
    audio = store.put("a.wav", speech(SENTENCE))
    async with running(store, tmp_path, MAX_JOBS="2") as server:
        for _ in range(2):
            assert (await server.analyse(audio, receiver.address("/gated"))).status_code == 200
        refused = await server.analyse(audio, receiver.address("/gated"))
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) > 0
        receiver.gate.set()
        await until(lambda: _took(server, audio, receiver.address("/gated")))


async def _took(server: Program, audio: str, webhook: str) -> bool:
    return (await server.analyse(audio, webhook)).status_code == 200


async def test_a_worker_that_is_killed_costs_nobody_his_result(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        audio, webhook = store.put("a.wav", speech(SENTENCE)), receiver.address("/hook")
        for worker in server.workers():
            worker.suspend()
        for _ in range(2):
            await server.analyse(audio, webhook)
        await server.logged("recording-fetched", times=2)
        server.workers()[0].kill()
        outcomes = [await receiver.outcome() for _ in range(2)]
        assert [outcome["status"] for outcome in outcomes] == ["completed", "completed"]
        assert len(await server.logged("worker-died")) == 1
        await server.analyse(audio, webhook)
        assert (await receiver.outcome())["status"] == "completed"


async def test_a_recording_that_always_kills_its_worker_fails_alone(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2", MAX_ANALYSIS_SECONDS="1") as server:
        webhook = receiver.address("/hook")
        hopeless = await server.analyse(store.put("long.wav", wav(1500, 5, rate=8000)), webhook)
        fine = [await server.analyse(store.put("a.wav", speech(SENTENCE)), webhook) for _ in range(3)]
        outcomes = {outcome["job_id"]: outcome for outcome in [await receiver.outcome() for _ in range(4)]}
        assert outcomes[hopeless.json()["job_id"]]["status"] == "failed"
        assert "ran out of time" in outcomes[hopeless.json()["job_id"]]["error"]
        assert [outcomes[job.json()["job_id"]]["status"] for job in fine] == ["completed"] * 3


async def test_sigterm_lets_the_work_in_hand_finish_and_exits_0(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path) as server:
        (worker,) = server.workers()
        worker.suspend()
        audio = store.put("a.wav", speech(SENTENCE))
        for _ in range(3):
            await server.analyse(audio, receiver.address("/hook"))
        server.process.send_signal(signal.SIGTERM)
        await server.logged("jobs-draining")
        worker.resume()
        assert [(await receiver.outcome())["status"] for _ in range(3)] == ["completed"] * 3
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0
        assert not worker.is_running()
        assert server.lines()[-1]["event"] == "stopped"


async def test_what_cannot_finish_in_time_is_left_to_whoever_asked(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    """It has not failed: another server, or this one started again, can still analyse it."""
    async with running(store, tmp_path, STOP_SECONDS="0") as server:
        server.workers()[0].suspend()
        await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/hook"))
        await server.logged("recording-fetched")
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0
        assert "job-left" in [line["event"] for line in server.lines()]
        assert receiver.received.empty()


async def test_a_result_whose_webhook_is_down_is_offered_once_more_at_the_end(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses["/down"] = [503] * 6
    async with running(store, tmp_path, STOP_SECONDS="0", WEBHOOK_ATTEMPTS="20") as server:
        await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/down"))
        first = await receiver.outcome()
        server.process.send_signal(signal.SIGTERM)
        assert await receiver.outcome() == first
        assert first["status"] == "completed"
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0


async def test_a_killed_server_leaves_no_worker_behind(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        await until(lambda: _is(not any(worker.is_running() for worker in workers)))


async def test_a_server_whose_store_is_gone_is_not_ready_and_says_so_to_the_job(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with running_store(tmp_path / "s3") as store, running(store, tmp_path, STORAGE_SECONDS="1") as server:
        audio = store.put("a.wav", speech(SENTENCE))
        store.process.kill()
        ready = await server.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"]["storage"] == "down"
        assert (await server.get("/health/live")).status_code == 200
        await server.analyse(audio, receiver.address("/hook"))
        assert (await receiver.outcome())["error"] == "The storage of the recording could not be reached."


async def test_a_file_over_the_limit_is_not_fetched(store: Store, receiver: Receiver, tmp_path: Path) -> None:
    async with running(store, tmp_path, MAX_AUDIO_BYTES="1000", MAX_AUDIO_SECONDS="1") as server:
        await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/hook"))
        assert (await receiver.outcome())["error"] == "The recording's file is larger than 1000 bytes."


def test_a_missing_setting_stops_the_server_at_start_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis_server"],
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "S3_BUCKET_NAME is not set" in done.stderr
    assert "Traceback" not in done.stderr
