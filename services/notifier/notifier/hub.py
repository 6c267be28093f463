"""The open SSE streams of this process, and how each is told of its job's progress without gap or repeat."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence

import structlog

from chassis.identity.caller import Caller
from contracts import api
from contracts.events import JobProgressedData
from contracts.failures import Language
from contracts.job import Job, is_terminal, progressed, views_since
from contracts.rights import Right
from notifier.jobs import Jobs
from notifier.sse import HEARTBEAT, Stream, chunk, reconnection

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
HEARTBEAT_TICKS = 60
"""Heartbeats are spread over this many moments, so that many streams do not all wake at once."""
SILENT_HEARTBEATS = 2
"""After so many heartbeats without a state, a stream's job is looked at: what was told of it may have been lost."""
LOOKS = 1000
"""The most streams whose jobs are looked at with one question to MongoDB."""
MAX_STREAMS = 10_000
CATCH_UP_READS = 16
"""Jobs read at once when many streams have something to catch up on."""
ENDING_SECONDS = 5.0
"""The longest time over which a stopping process spreads the end of its streams, in ENDING_TICKS steps."""
ENDING_TICKS = 50

Frames = dict[tuple[Language, bool], bytes]
"""A state as it is sent, by its language and whether it says where audio lies in S3."""


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
        self._doubtful: list[Stream] = []
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
        """Refuse new streams, end the open ones little by little, and return when their connections are over.

        Each listener is told when to reconnect, finds another replica, and resumes. A listener who has not read what it
        was sent within `seconds` is dropped.
        """
        self.is_ending = True
        deadline = asyncio.get_running_loop().time() + seconds
        streams = self._all()
        try:
            for tick in range(ENDING_TICKS):
                _end(streams[tick::ENDING_TICKS])
                if self._count:
                    await asyncio.sleep(min(seconds / 2, ENDING_SECONDS) / ENDING_TICKS)
            # Streams that were still loading their job have started by now, or were refused.
            while self._count and asyncio.get_running_loop().time() < deadline:
                _end(self._all())
                await asyncio.sleep(ENDING_SECONDS / ENDING_TICKS)
        finally:  # the time may be up before
            for stream in self._all():
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
        """Forget a stream whose connection is over, or which never began."""
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
            _write_state(stream, progressed(job, number, view), {})
        stream.revision = max(stream.revision or 0, revision)
        if stream.catching_up is None:
            self._settle(stream)

    def deliver(self, job_id: str, state: JobProgressedData) -> None:
        """Send one change to the job's streams; skip those that have it, and read the job for those that lack more."""
        frames: Frames = {}
        for stream in tuple(self._streams.get(job_id, ())):
            if stream.revision is None or state.revision > stream.revision + 1:
                if is_terminal(state.status):
                    stream.end = state
                self._lag(stream)
            elif state.revision > stream.revision:
                _write_state(stream, state, frames)

    def refresh(self) -> None:
        """Look at every open job: changes may have been missed while the broker was away."""
        for stream in self._all():
            stream.behind |= stream.revision is None  # the job is being read, perhaps since before
            if stream.revision is not None:
                self._doubtful.append(stream)
        self._look()

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
                    if stream.revision is not None:
                        stream.write(HEARTBEAT)
                        self._note_silence(stream)
                self._look()
                await asyncio.sleep(self._tick_seconds)

    def _note_silence(self, stream: Stream) -> None:
        stream.heartbeats += 1
        if stream.heartbeats == SILENT_HEARTBEATS:
            stream.heartbeats = 0
            self._doubtful.append(stream)

    def _look(self) -> None:
        """Have the jobs looked at whose streams may lack something, unless that is under way already."""
        if self._doubtful and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_at_doubtful())

    async def _look_at_doubtful(self) -> None:
        while self._doubtful:
            streams, self._doubtful = self._doubtful[:LOOKS], self._doubtful[LOOKS:]
            try:
                revisions = await self._jobs.revisions({stream.job_id for stream in streams})
            except Exception as error:  # noqa: BLE001 - most likely an outage: while they are silent, they come again
                self._doubtful.clear()
                log.warning("streams are not looked at", reason=type(error).__name__)
                return
            for stream in streams:
                has_left = stream not in self._streams.get(stream.job_id, ())
                if not has_left and revisions.get(stream.job_id) != stream.revision:
                    self._lag(stream)

    def callers(self) -> set[Caller]:
        """Return who has opened the streams, but for those who did not have to say who they are."""
        return {stream.caller for stream in self._all() if stream.caller.is_known}

    def send_away(self, callers: Collection[Caller]) -> None:
        """End the streams of these callers. They reconnect, and learn why they are not let in."""
        _end([stream for stream in self._all() if stream.caller in callers])

    def _all(self) -> Sequence[Stream]:
        return [stream for streams in self._streams.values() for stream in streams]


def _write_state(stream: Stream, state: JobProgressedData, frames: Frames) -> None:
    """Send one state. `frames` caches it in each form, because many streams may be sent the same."""
    form = (stream.language, stream.caller.may(Right.JOBS_ALL))
    frame = frames.get(form)
    if frame is None:
        shown = state if form[1] else api.opaque(stream.job_id, state)
        data = api.state_json(stream.job_id, shown, stream.language)
        frame = frames[form] = chunk(b"id: %d\ndata: %b\n\n" % (state.revision, data))
    stream.revision = state.revision
    stream.heartbeats = 0
    stream.write(frame)
    if is_terminal(state.status):
        stream.finish()


def _end(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.write(reconnection())
        stream.finish()


def _end_purged(stream: Stream) -> None:
    """End a stream whose job is no longer kept: with the job's terminal state if that has arrived, else abruptly."""
    if stream.end is not None:
        _write_state(stream, stream.end, {})
    else:
        stream.drop()
