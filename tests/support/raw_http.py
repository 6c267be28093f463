"""HTTP/1.1 by hand over a plain socket: requests that no well-behaved client sends, or stops sending halfway."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

BOUNDARY = "a-boundary-of-the-tests"
ANSWER_SECONDS = 15.0


@dataclass(frozen=True)
class Answer:
    """An answer as it came; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class RawConnection:
    """One connection; bytes are sent unchanged."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader = reader
        self._writer = writer
        self._host = host

    async def begin(self, path: str, headers: Mapping[str, str], method: str = "POST") -> None:
        """Send the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", *(f"{name}: {headers[name]}" for name in headers)]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def begin_upload(self, token_id: str, headers: Mapping[str, str]) -> None:
        """Send the head of an upload whose form has the BOUNDARY."""
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        await self.begin(f"/tokens/{token_id}/upload-audio", {**kind, **headers})

    async def send(self, content: bytes) -> None:
        """Send bytes; ConnectionError when nobody takes them any more."""
        self._writer.write(content)
        await self._writer.drain()

    async def send_chunk(self, content: bytes) -> None:
        """Send one chunk of a body with `Transfer-Encoding: chunked` (RFC 9112, section 7.1)."""
        await self.send(b"%x\r\n%b\r\n" % (len(content), content))

    async def answer(self) -> Answer:
        """Read the answer; TimeoutError when there is none within the limit."""
        async with asyncio.timeout(ANSWER_SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.rstrip("\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(first.split()[1]), headers, body)

    async def status(self) -> int:
        """Read the first line of the answer, and no more; TimeoutError when there is none within the limit."""
        async with asyncio.timeout(ANSWER_SECONDS):
            return int((await self._reader.readline()).split()[1])

    async def until_closed(self) -> None:
        """Wait until the server has closed its side; AssertionError when it sends more, or leaves it open."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                left = await self._reader.read(1)
        except ConnectionError:
            return
        except TimeoutError:
            left = b"silence"
        assert not left, f"the connection stays open: {left!r}"

    def abort(self) -> None:
        """Vanish, as a client whose network is gone: the connection is reset."""
        own = self._writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


@asynccontextmanager
async def raw_connection(url: str, from_address: str | None = None) -> AsyncIterator[RawConnection]:
    """Connect to the server of `url`, from any of the loopback's addresses, and close at the end."""
    place = urlsplit(url)
    own = None if from_address is None else (from_address, 0)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, local_addr=own)
    try:
        yield RawConnection(reader, writer, place.netloc)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def part(content: bytes, *, name: str = "file", filename: str | None = "recording.wav") -> bytes:
    """One part of a form (RFC 7578), up to the end of its content; without a file name it is a plain field."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
