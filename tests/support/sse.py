"""Server-sent events as they come over the wire (WHATWG HTML, section 9.2), and a listener like a browser's."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

RECONNECT_SECONDS = 3.0
"""How long a browser waits before it reconnects when no stream has told it yet."""


@dataclass
class Block:
    """The lines between two blank lines: a message when they have data, else a comment or an instruction."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    retry: str | None = None
    comments: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def state(self) -> dict[str, Any]:
        """The data as JSON."""
        assert self.data is not None, f"no message: {self}"
        found: dict[str, Any] = json.loads(self.data)
        return found


class Stream:
    """One open answer. `blocks` is everything that has come so far, comments included."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.blocks: list[Block] = []

    async def messages(self) -> AsyncGenerator[Block]:
        """Every message as it comes."""
        async for block in self.all():
            if block.data is not None:
                yield block

    async def all(self) -> AsyncIterator[Block]:
        """Every block as it comes, comments included."""
        unread = b""
        async for piece in self.response.aiter_bytes():
            unread += piece
            while b"\n\n" in unread:
                text, unread = unread.split(b"\n\n", 1)
                block = _parsed(text.decode())
                self.blocks.append(block)
                yield block
        assert not unread, f"the stream ended within a block: {unread!r}"

    async def to_end(self) -> list[Block]:
        """Every message until the server ends the stream."""
        return [message async for message in self.messages()]


@asynccontextmanager
async def listening(
    client: httpx.AsyncClient, url: str, *, last_event_id: str | None = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Stream]:
    """Open the stream; the connection is cut when the block ends."""
    sent = {"Accept": "text/event-stream", **(headers or {})}
    if last_event_id is not None:
        sent["Last-Event-ID"] = last_event_id
    async with client.stream("GET", url, headers=sent, timeout=httpx.Timeout(30, read=60)) as response:
        yield Stream(response)


async def heard(client: httpx.AsyncClient, url: str, *, last_event_id: str | None = None) -> list[Block]:
    """Every message of one stream, from its opening to its end; AssertionError when no stream starts."""
    async with listening(client, url, last_event_id=last_event_id) as stream:
        assert stream.response.status_code == 200, stream.response
        return await stream.to_end()


async def heard_with_cuts(client: httpx.AsyncClient, url: str) -> list[Block]:
    """Every message until 204, to a listener who is cut off after each one and reconnects as browsers do."""
    messages: list[Block] = []
    while True:
        last_id = messages[-1].id if messages else None
        async with listening(client, url, last_event_id=last_id) as stream:
            if stream.response.status_code == 204:
                return messages
            assert stream.response.status_code == 200, stream.response
            async with aclosing(stream.messages()) as coming:
                async for message in coming:
                    messages.append(message)
                    break


async def followed(client: httpx.AsyncClient, url: str, messages: list[Block] | None = None) -> list[Block]:
    """Every message to a page whose EventSource was there from the beginning, until the terminal state.

    They are put into `messages`, if that is given, as they come.

    As browsers do (WHATWG HTML, section 9.2.2): when a stream ends or its connection breaks, a new one is opened, with
    the last id, after the time that `retry:` gave. Any answer but a stream ends it for good: here, an AssertionError.
    """
    messages = [] if messages is None else messages
    reconnect_seconds = RECONNECT_SECONDS
    while True:
        last_id = messages[-1].id if messages else "0"
        with suppress(httpx.TransportError):
            async with listening(client, url, last_event_id=last_id) as stream:
                await assert_taken_by_a_browser(stream.response)
                async for block in stream.all():
                    if block.retry is not None:
                        reconnect_seconds = int(block.retry) / 1000
                    if block.data is not None:
                        messages.append(block)
        if messages and messages[-1].state["status"] != "processing":
            return messages
        # Browsers pause too; without a pause, a service that is down would be flooded with requests.
        await asyncio.sleep(reconnect_seconds)


async def assert_taken_by_a_browser(response: httpx.Response) -> None:
    """Check that a browser's EventSource would listen to this answer, or come back later."""
    content_type = response.headers.get("content-type", "")
    if response.status_code != 200 or content_type.split(";")[0] != "text/event-stream":
        said = (await response.aread()).decode(errors="replace")
        raise AssertionError(f"a browser gives up for good: {response.status_code} {content_type} {said}")


def _parsed(text: str) -> Block:
    block = Block()
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not name:
            block.comments.append(value)
        elif name == "data":
            block.data = value if block.data is None else f"{block.data}\n{value}"
        elif name in {"id", "event", "retry"}:
            setattr(block, name, value)
        else:
            block.unknown.append(line)
    return block
