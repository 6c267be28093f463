"""A service as a process of its own, whose back ends are behind doors that a test can shut."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from tests.support.ports import free_port
from tests.support.waiting import until

STOP_SECONDS = 20.0
START_SECONDS = 60.0

BACK_ENDS = {"rabbitmq": "RABBITMQ_URL", "mongodb": "MONGODB_URL", "s3": "S3_ENDPOINT_URL"}
"""The setting that names each back end, by the name of its health check."""


@dataclass(frozen=True)
class Service:
    """What is particular to one of the four."""

    name: str
    back_ends: tuple[str, ...]
    consumes: bool = True

    @property
    def package(self) -> str:
        """What `python -m` starts."""
        return self.name.replace("-", "_")

    @property
    def checks(self) -> set[str]:
        """The names in its health report."""
        return {"accepting", *self.back_ends, *(["consumers"] if self.consumes else [])}


SERVICES = (
    Service("gateway", ("rabbitmq", "mongodb", "s3"), consumes=False),
    Service("uploader", ("rabbitmq", "s3")),
    Service("analyzer-bridge", ("rabbitmq", "mongodb")),
    Service("notifier", ("rabbitmq", "mongodb")),
)


class Door:
    """A way to a back end that can be shut, which cuts every connection through it, and opened again."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname or "", address.port or 0
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()
        if self._carrying:
            await asyncio.wait(self._carrying)
        self._server = None

    def through(self, url: str) -> str:
        """The back end's address by way of this door."""
        address = urlsplit(url)
        credentials, at, _ = address.netloc.rpartition("@")
        moved = address._replace(netloc=f"{credentials}{at}127.0.0.1:{self.port}")
        if address.scheme == "mongodb":
            # Else the driver asks the replica set for its members, and goes to them past the door.
            moved = moved._replace(query="directConnection=true")
        return moved.geturl()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._host, self._port)
        for way in (_carried(reader, back), _carried(there, writer)):
            task = asyncio.create_task(way)
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)
        self._open |= {writer, back}


async def _carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()


class ServiceProcess:
    """One running process: its address, its doors, and what it has said."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, doors: Mapping[str, Door], log: Path) -> None:
        self.url = url
        self.doors = doors
        self._process = process
        self._log = log

    @classmethod
    @asynccontextmanager
    async def running(cls, service: Service, settings: Mapping[str, str], log: Path) -> AsyncIterator[Self]:
        """Start the service with its doors shut; it is killed at the end of the block if it is still there."""
        doors = {back_end: Door(settings[BACK_ENDS[back_end]]) for back_end in service.back_ends}
        moved = {BACK_ENDS[name]: door.through(settings[BACK_ENDS[name]]) for name, door in doors.items()}
        port = free_port()
        async with AsyncExitStack() as stack:
            for door in doors.values():
                stack.push_async_callback(door.shut)
            with log.open("wb") as said:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    service.package,
                    env={"PATH": os.environ["PATH"], **settings, **moved, "PORT": str(port)},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=said,
                    stderr=asyncio.subprocess.STDOUT,
                )
            running = cls(process, f"http://127.0.0.1:{port}", doors, log)
            try:
                yield running
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def health(self, client: httpx.AsyncClient, path: str = "/health/ready") -> httpx.Response | None:
        """What a health address answers, None while nobody listens."""
        try:
            return await client.get(f"{self.url}{path}")
        except httpx.TransportError:
            assert self._process.returncode is None, self.said
            return None

    async def until_checks(self, client: httpx.AsyncClient, expected: Mapping[str, str]) -> httpx.Response:
        """Wait until the health report says just this of the back ends; gives the report."""

        async def look() -> httpx.Response | None:
            answer = await self.health(client)
            return answer if answer is not None and answer.json()["checks"] == expected else None

        return await until(look, f"checks {expected} of {self.url}", limit_seconds=START_SECONDS)

    async def stop(self) -> int:
        """Ask it to stop, as a process manager does; gives the exit code."""
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            return await self._process.wait()

    @property
    def said(self) -> str:
        """Everything it has written, errors included."""
        return self._log.read_text(encoding="utf-8")


def log_lines(said: str) -> list[dict[str, Any]]:
    """What a service said as JSON; AssertionError shows a line that is none."""
    lines = []
    for line in said.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            raise AssertionError(f"no JSON: {line!r}") from None
    return lines
