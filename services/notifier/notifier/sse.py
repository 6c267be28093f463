"""One listener's stream of server-sent events (WHATWG HTML, section 9.2), written to the connection itself."""

import asyncio
import random
from collections.abc import Callable

import structlog

from chassis.identity.caller import ANYBODY, Caller
from contracts.events import JobProgressedData
from contracts.failures import Language

log = structlog.get_logger()

MAX_WAITING = 64
"""The most frames that wait for a listener whose socket is full. With one more it is dropped, and reconnects later."""
RECONNECT_SECONDS = 2.0
"""When a dropped listener reconnects. Each is told up to half more or less, so that they do not all come at once."""
LAST_CHUNK = b"0\r\n\r\n"


def chunk(text: bytes) -> bytes:
    """Return a part of a body as HTTP/1.1 sends it (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(text), text)


HEARTBEAT = chunk(b": heartbeat\n\n")


def reconnection() -> bytes:
    """Return the instruction to reconnect (`retry:`, section 9.2.6) after about RECONNECT_SECONDS, varied at random."""
    varied = random.uniform(RECONNECT_SECONDS / 2, RECONNECT_SECONDS * 1.5)  # noqa: S311 - jitter, not a secret
    return chunk(b"retry: %d\n\n" % (1000 * varied))


class Stream(asyncio.Protocol):
    """One listener's connection, from `begin` on.

    `caller` is who opened it, and `client` by what name it is counted. `revision` is the last that was sent; None until
    the first is sent.

    `end` is the terminal state when it arrived before earlier states, which the listener still lacks. `heartbeats`
    counts those since the last state, or since the job was last looked at. `on_lost` is called when the connection is
    over.
    """

    __slots__ = (
        "_on_lost",
        "_transport",
        "_waiting",
        "behind",
        "caller",
        "catching_up",
        "client",
        "end",
        "ended",
        "heartbeats",
        "job_id",
        "language",
        "revision",
    )

    def __init__(
        self,
        job_id: str,
        language: Language,
        on_lost: Callable[["Stream"], None],
        caller: Caller = ANYBODY,
        client: str | None = None,
    ) -> None:
        self.caller = caller
        self.client = client
        self.job_id = job_id
        self.language = language
        self.revision: int | None = None
        self.catching_up: asyncio.Task[None] | None = None
        self.behind = False
        self.end: JobProgressedData | None = None
        self.ended = False
        self.heartbeats = 0
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiting: int | None = None
        """How many frames wait for a listener who does not read; None while the socket accepts data."""

    @property
    def has_begun(self) -> bool:
        """Tell whether there is a connection that can be written to."""
        return self._transport is not None

    def begin(self, transport: asyncio.Transport) -> None:
        """Write to this connection from now on."""
        self._transport = transport

    def write(self, frame: bytes) -> None:
        """Send a chunk without waiting; drop a listener for whom too much waits already."""
        if self.ended or self._transport is None:
            return
        if self._waiting is not None:
            if self._waiting >= MAX_WAITING:
                self.drop()
                return
            self._waiting += 1
        self._transport.write(frame)

    def finish(self) -> None:
        """End the body, and the connection once all is sent."""
        if not self.ended and self._transport is not None:
            self.ended = True
            self._transport.write(LAST_CHUNK)
            self._transport.close()

    def drop(self) -> None:
        """Cut the connection; a browser reconnects by itself and resumes."""
        self.ended = True
        if self._transport is not None:
            log.info("stream dropped", job_id=self.job_id)
            self._transport.abort()

    def pause_writing(self) -> None:
        """Count what waits: the socket accepts no more."""
        self._waiting = 0

    def resume_writing(self) -> None:
        """Count no longer."""
        self._waiting = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Note that the listener has gone, or has been sent away."""
        self.ended = True
        self._on_lost(self)
