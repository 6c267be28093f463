"""The open SSE streams of this process, and how each is told of its job's progress without gap or repeat."""

import asyncio
import random
import types
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from contracts import api
from contracts.events import JobProgressedData
from contracts.failures import Language
from contracts.job import Job, is_terminal, progressed, views_since
from notifier.jobs import Jobs

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
HEARTBEAT_TICKS = 60
"""Heartbeats are spread over this many moments, so that many streams do not all wake at once."""
HEARTBEAT = b": heartbeat\n\n"
SILENT_HEARTBEATS = 2
"""After so many heartbeats without a state, a stream's job is looked at: what was told of it may have been lost."""
LOOKS = 1000
"""Jobs of silent streams that are looked at with one question to MongoDB."""
MAX_STREAMS = 10_000
MAX_WAITING = 64
"""The most frames that wait for a listener who does not read. With one more it is dropped, and reconnects later."""
CATCH_UP_READS = 16
"""Jobs read at once when many streams have something to catch up on."""
RECONNECT_SECONDS = 2.0
"""When a dropped listener reconnects. Each is told up to half more or less, so that they do not all come at once."""
ENDING_SECONDS = 5.0
"""The longest time over which a stopping process spreads the end of its streams, in ENDING_TICKS steps."""
ENDING_TICKS = 50

Send = Callable[[dict[str, Any]], Awaitable[None]]


def reconnection(seconds: float = RECONNECT_SECONDS) -> bytes:
    """Return the instruction to reconnect (`retry:`, section 9.2.6) after about `seconds`, varied at random."""
    return b"retry: %d\n\n" % (1000 * random.uniform(seconds / 2, seconds * 1.5))  # noqa: S311 - jitter, not a secret


class Stream:
    """One listener. `revision` is the last that was sent; None until the first is sent.

    `end` is the terminal state when it arrived before earlier states, which the listener still lacks. `heartbeats`
    counts those since the last state, or since the job was last looked at.
    """

    __slots__ = (
        "_send",
        "_waiting",
        "_writer",
        "behind",
        "catching_up",
        "end",
        "ended",
        "heartbeats",
        "job_id",
        "language",
        "owner",
        "revision",
    )

    def __init__(self, job_id: str, send: Send, language: Language, owner: asyncio.Task[Any] | None) -> None:
        self.job_id = job_id
        self.language = language
        self.owner = owner
        self.revision: int | None = None
        self.catching_up: asyncio.Task[None] | None = None
        self.behind = False
        self.end: JobProgressedData | None = None
        self.ended = False
        self.heartbeats = 0
        self._send = send
        self._waiting: deque[dict[str, Any]] | None = None
        self._writer: asyncio.Task[None] | None = None

    def write(self, frame: bytes, *, last: bool = False) -> None:
        """Send without waiting: at once while the socket accepts data, through a bounded queue when it is full."""
        if self.ended:
            return
        self.ended = last
        message = {"type": "http.response.body", "body": frame, "more_body": not last}
        if self._waiting is not None:
            if len(self._waiting) >= MAX_WAITING:
                self.drop()
            else:
                self._waiting.append(message)
            return
        sending = self._send(message)
        assert isinstance(sending, Coroutine)  # noqa: S101 - ASGI servers' send is a coroutine function
        try:
            blocked_on = sending.send(None)
        except StopIteration:
            return
        except OSError:
            self.drop()
            return
        self._waiting = deque()
        self._writer = asyncio.create_task(self._write_waiting(_resumed(sending, blocked_on)))

    def drop(self) -> None:
        """End the listener's request; a browser reconnects by itself and resumes."""
        self.ended = True
        if self._writer is not None:
            self._writer.cancel()
        if self.owner is not None:
            self.owner.cancel()

    async def _write_waiting(self, first: Awaitable[None]) -> None:
        with suppress(OSError):
            await first
            while self._waiting:
                await self._send(self._waiting.popleft())
        self._waiting = None
        self._writer = None


class Hub:
    """All open streams, by job."""

    def __init__(self, jobs: Jobs, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._jobs = jobs
        self._tick_seconds = heartbeat_seconds / HEARTBEAT_TICKS
        self._streams: defaultdict[str, set[Stream]] = defaultdict(set)
        self._count = 0
        self.is_ending = False
        self._reads = asyncio.Semaphore(CATCH_UP_READS)
        self._heartbeat: asyncio.Task[None] | None = None
        self._silent: list[Stream] = []
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send heartbeats, and to look at the jobs of silent streams."""
        self._heartbeat = asyncio.create_task(self._beat())

    def stop(self) -> None:
        """End both."""
        for task in (self._heartbeat, self._looking):
            if task is not None:
                task.cancel()

    async def end_streams(self, seconds: float) -> None:
        """Refuse new streams, end the open ones little by little, and return when their requests have ended.

        Each listener is told when to reconnect, finds another replica, and resumes. A listener who has not read what it
        was sent within `seconds` is dropped.
        """
        self.is_ending = True
        deadline = asyncio.get_running_loop().time() + seconds
        streams = self._all()
        for tick in range(ENDING_TICKS):
            _end(streams[tick::ENDING_TICKS])
            if self._count:
                await asyncio.sleep(min(seconds / 2, ENDING_SECONDS) / ENDING_TICKS)
        # Streams that were still loading their job have started by now, or were refused.
        while self._count and asyncio.get_running_loop().time() < deadline:
            _end(self._all())
            await asyncio.sleep(ENDING_SECONDS / ENDING_TICKS)
        for stream in self._all():
            if stream.revision is not None:
                stream.drop()

    @property
    def is_full(self) -> bool:
        """Tell whether this process takes no more streams: it has as many as it can serve, or it is stopping."""
        return self.is_ending or self._count >= MAX_STREAMS

    def attach(self, stream: Stream) -> None:
        """Begin to deliver its job's changes to `stream`; before `send_since`, only the fact of a change is noted."""
        self._streams[stream.job_id].add(stream)
        self._count += 1

    def detach(self, stream: Stream) -> None:
        """Forget a stream whose request has ended."""
        streams = self._streams[stream.job_id]
        streams.discard(stream)
        if not streams:
            del self._streams[stream.job_id]
        self._count -= 1
        if stream.catching_up is not None:
            stream.catching_up.cancel()

    def listens(self, job_id: str) -> bool:
        """Tell whether this process has a stream for the job."""
        return job_id in self._streams

    def listened(self) -> Collection[str]:
        """Return the ids of the jobs that have streams."""
        return self._streams.keys()

    def send_since(self, stream: Stream, job: Job, revision: int) -> None:
        """Send every state after `revision`, and end the stream with the terminal one."""
        for number, view in views_since(job, revision):
            _write_state(stream, job.job_id, progressed(job, number, view), {})
        stream.revision = max(stream.revision or 0, revision)
        if stream.catching_up is None:
            self._settle(stream)

    def deliver(self, job_id: str, state: JobProgressedData) -> None:
        """Send one change to the job's streams; skip those that have it, and read the job for those that lack more."""
        frames: dict[Language, bytes] = {}
        for stream in tuple(self._streams.get(job_id, ())):
            if stream.revision is None or state.revision > stream.revision + 1:
                if is_terminal(state.status):
                    stream.end = state
                self._lag(stream)
            elif state.revision > stream.revision:
                _write_state(stream, job_id, state, frames)

    def refresh(self) -> None:
        """Read every open job again: changes may have been missed while the broker was away."""
        for stream in self._all():
            self._lag(stream)

    def _lag(self, stream: Stream) -> None:
        """Note that the stream lacks states. The job is read at once, or when the read that is under way has ended."""
        stream.behind = True
        if stream.revision is not None:
            self._settle(stream)

    def _settle(self, stream: Stream) -> None:
        if stream.behind and stream.catching_up is None and not stream.ended:
            stream.catching_up = asyncio.create_task(self._catch_up(stream))

    async def _catch_up(self, stream: Stream) -> None:
        try:
            while stream.behind and not stream.ended:
                stream.behind = False
                async with self._reads:
                    job = await self._jobs.find(stream.job_id)
                if job is None:
                    _end_purged(stream)
                    return
                self.send_since(stream, job, stream.revision or 0)
        except Exception as error:  # noqa: BLE001 - the listener reconnects and resumes when MongoDB is back
            log.warning("stream dropped", job_id=stream.job_id, reason=type(error).__name__)
            stream.drop()
        finally:
            stream.catching_up = None

    async def _beat(self) -> None:
        while True:
            streams = self._all()
            for tick in range(HEARTBEAT_TICKS):
                for stream in streams[tick::HEARTBEAT_TICKS]:
                    # A stream without a first state has not begun its response, so no body may be sent.
                    if stream.revision is not None:
                        stream.write(HEARTBEAT)
                        self._note_silence(stream)
                self._look_at_silent()
                await asyncio.sleep(self._tick_seconds)

    def _note_silence(self, stream: Stream) -> None:
        stream.heartbeats += 1
        if stream.heartbeats == SILENT_HEARTBEATS:
            stream.heartbeats = 0
            self._silent.append(stream)

    def _look_at_silent(self) -> None:
        """Look at the jobs of silent streams, unless a look is under way: they are in the next one then."""
        if self._silent and (self._looking is None or self._looking.done()):
            silent, self._silent = self._silent[:LOOKS], self._silent[LOOKS:]
            self._looking = asyncio.create_task(self._look_at(silent))

    async def _look_at(self, silent: Sequence[Stream]) -> None:
        try:
            revisions = await self._jobs.revisions({stream.job_id for stream in silent})
        except Exception as error:  # noqa: BLE001 - most likely an outage: they are looked at again while they are silent
            log.warning("silent streams are not looked at", reason=type(error).__name__)
            return
        for stream in silent:
            has_left = stream not in self._streams.get(stream.job_id, ())
            if not has_left and revisions.get(stream.job_id) != stream.revision:
                self._lag(stream)

    def _all(self) -> Sequence[Stream]:
        return [stream for streams in self._streams.values() for stream in streams]


def _write_state(stream: Stream, job_id: str, state: JobProgressedData, frames: dict[Language, bytes]) -> None:
    """Send one state. `frames` caches it in each language, because many streams may be sent the same."""
    frame = frames.get(stream.language)
    if frame is None:
        data = api.state_json(job_id, state, stream.language)
        frame = frames[stream.language] = b"id: %d\ndata: %b\n\n" % (state.revision, data)
    stream.revision = state.revision
    stream.heartbeats = 0
    stream.write(frame, last=is_terminal(state.status))


def _end(streams: Sequence[Stream]) -> None:
    for stream in streams:
        # A stream without a first state has not begun its response, so no body may be sent.
        if stream.revision is not None:
            stream.write(reconnection(), last=True)


def _end_purged(stream: Stream) -> None:
    """End a stream whose job is no longer kept: with the job's terminal state if that has arrived, else abruptly."""
    if stream.end is not None:
        _write_state(stream, stream.job_id, stream.end, {})
    else:
        stream.drop()


@types.coroutine
def _resumed(coroutine: Coroutine[Any, Any, None], blocked_on: Any) -> Generator[Any, Any, None]:
    """Let a task await the rest of a coroutine whose first step was made by hand and yielded `blocked_on`."""
    resume: Callable[[], Any]
    while True:
        try:
            value = yield blocked_on
        except BaseException as error:  # noqa: BLE001 - thrown into the coroutine, as `await` would
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, value)
        try:
            blocked_on = resume()
        except StopIteration:
            return
