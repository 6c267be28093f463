"""The real analysis server as a program, with an S3 server in front of it and a webhook behind it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3
import httpx
import psutil
import uvicorn
from starlette.types import Receive, Scope, Send

from tests.support.ports import free_port

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


@dataclass
class Store:
    """An S3 server over a folder."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def put(self, key: str, content: bytes) -> str:
        self._client().put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        content: bytes = self._client().get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content

    def remove(self, key: str) -> None:
        self._client().delete_object(Bucket=BUCKET, Key=key)

    def keys(self, prefix: str) -> list[str]:
        found = self._client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return [entry["Key"] for entry in found]

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEYS[0],
            aws_secret_access_key=KEYS[1],
            region_name="us-east-1",
        )


@contextlib.asynccontextmanager
async def running_store(folder: Path, *options: str) -> AsyncIterator[Store]:
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    port = free_port()
    rclone = Path(sys.executable).with_name("rclone")
    serve = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS)]
    command = [*serve, *options, str(folder)]
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

    def addresses(self, path: str, count: int) -> list[str]:
        """As many addresses: requests that are the same in everything, the webhook too, are one job."""
        return [f"{self.address(path)}?number={number}" for number in range(count)]

    async def call(self) -> tuple[str, dict[str, Any], dict[str, str]]:
        return await asyncio.wait_for(self.received.get(), LIMIT_S)

    async def outcome(self) -> dict[str, Any]:
        return (await self.call())[1]


@contextlib.asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    config = uvicorn.Config(made, host="127.0.0.1", port=made.port, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    await until(lambda: is_so(server.started))
    yield made
    made.gate.set()
    server.should_exit = True
    await serving


async def is_so(fact: bool) -> bool:
    return fact


@dataclass
class Program:
    """A running analysis server."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> str:
        return self.url.rpartition(":")[2]

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

    async def until_nothing_is_kept(self, store: Store) -> None:
        """Wait until the server has forgotten all that it had accepted."""
        await until(lambda: is_so(not store.keys("analysis-server/accepted-")))

    async def logged(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        async def find() -> list[dict[str, Any]] | None:
            found = [line for line in self.lines() if line["event"] == event]
            return found if len(found) >= times else None

        return await until(find)


@contextlib.asynccontextmanager
async def running(store: Store, folder: Path, **settings: str) -> AsyncIterator[Program]:
    port, log = int(settings.get("PORT") or free_port()), folder / "log"
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - takes no time
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
