"""The open streams of one process: each hears every state of its job once and in order; no listener harms another."""

import asyncio
import json
import random
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from contracts import api
from contracts.events import Event, JobProgressedData
from contracts.failures import FailureCode, Language
from contracts.job import Job, apply, changed, progressed
from notifier import hub as hub_module
from notifier.hub import HEARTBEAT_TICKS, MAX_STREAMS, Hub
from notifier.sse import HEARTBEAT, LAST_CHUNK, MAX_WAITING, Stream
from tests.support.notifier_jobs import Jobs
from tests.support.waiting import until_true
from tests.unit import stories

LIMIT_SECONDS = 5.0


class Listener(asyncio.Transport):
    """One end of a connection: what arrived, and a socket that takes nothing while it is stalled."""

    def __init__(self, *, stalled: bool = False, on_write: Callable[[bytes], None] = lambda _: None) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.ended = False
        self.aborted = False
        self.changed = asyncio.Event()
        self.stream: Stream | None = None
        self._stalled = stalled
        self._held: list[bytes] = []
        self._closing = False
        self._on_write = on_write

    def open(self, hub: Hub, job_id: str = stories.JOB_ID, language: Language = "ko") -> Stream:
        """Begin a stream that is written to this end, but is not told anything yet."""
        stream = Stream(job_id, language, hub.detach)
        hub.attach(stream)
        self.begin(stream)
        return stream

    def begin(self, stream: Stream) -> None:
        self.stream = stream
        stream.begin(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closing, "it is closed"
        if self._stalled and not self._held and self.stream is not None:
            self.stream.pause_writing()
        self._held.append(bytes(data))
        self._flush()

    def close(self) -> None:
        self._closing = True
        self._flush()

    def abort(self) -> None:
        self.aborted = self._closing = True
        self._held.clear()
        self._lose()

    def stall(self) -> None:
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._flush()
        if self.stream is not None:
            self.stream.resume_writing()

    def _flush(self) -> None:
        if self._stalled:
            return
        for data in self._held:
            self._on_write(data)
            self._take(data)
        self._held.clear()
        if self._closing:
            assert self.ended, "closed without a last chunk"
            self._lose()
        self.changed.set()

    def _take(self, data: bytes) -> None:
        assert not self.ended, "something after the last chunk"
        while data:
            size, _, rest = data.partition(b"\r\n")
            body, data = rest[: int(size, 16)], rest[int(size, 16) :]
            assert data.startswith(b"\r\n")
            data = data[2:]
            if not body:
                self.ended = True
            else:
                self.bodies.append(body)

    def _lose(self) -> None:
        if self.stream is not None:
            asyncio.get_running_loop().call_soon(self.stream.connection_lost, None)
            self.changed.set()

    @property
    def revisions(self) -> list[int]:
        return [int(body.split(b"\n")[0].removeprefix(b"id: ")) for body in self.bodies if body.startswith(b"id: ")]

    @property
    def states(self) -> list[dict[str, Any]]:
        return [json.loads(body.split(b"data: ", 1)[1]) for body in self.bodies if body.startswith(b"id: ")]

    async def until(self, fact: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while not fact():
                self.changed.clear()
                await self.changed.wait()


def course(*happened: Event, job_id: str = stories.JOB_ID) -> list[Job]:
    """The job at each of its revisions."""
    jobs = [stories.new_job(job_id)]
    for event in happened:
        change = apply(jobs[-1], event)
        assert change is not None
        jobs.append(changed(jobs[-1], change))
    return jobs


COMPLETED = course(*stories.COURSES["completed"])


def told(job: Job, revision: int | None = None) -> JobProgressedData:
    """What the fan-out says of the job at this revision."""
    number = revision or job.revision
    view = next(entry.view for entry in job.history if entry.revision == number and entry.view)
    return progressed(job, number, view)


def listening(hub: Hub, listener: Listener, job: Job = COMPLETED[0], language: Language = "ko") -> Stream:
    """Open a stream that is told how the job stands."""
    stream = listener.open(hub, job.job_id, language)
    hub.send_since(stream, job, job.revision - 1)
    return stream


async def settled(*streams: Stream) -> None:
    """Wait until nothing is being read for these streams."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while any(stream.catching_up is not None for stream in streams):
            await asyncio.wait([stream.catching_up for stream in streams if stream.catching_up is not None])


async def test_a_stream_is_told_each_state_with_its_id_and_ends_with_the_terminal_one() -> None:
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener)
    for job in COMPLETED[1:]:
        hub.deliver(stories.JOB_ID, told(job))
    assert listener.revisions == [1, 2, 3, 4, 5]
    assert [state["progress"] for state in listener.states] == [10, 40, 70, 90, 100]
    assert listener.states[-1]["result"] == stories.RESULT
    assert listener.ended


async def test_a_message_is_one_id_line_one_data_line_and_a_blank_line() -> None:
    """An unnamed event: a browser's `onmessage` must fire (WHATWG HTML, section 9.2.6)."""
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener)
    (body,) = listener.bodies
    first, second, *rest = body.split(b"\n")
    assert (first, rest) == (b"id: 1", [b"", b""])
    assert json.loads(second.removeprefix(b"data: "))["job_id"] == stories.JOB_ID


async def test_line_breaks_in_a_result_do_not_break_a_message() -> None:
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener)
    (ended,) = course(stories.completed({"text": "a\n\nid: 99\r\ndata: x\u2028"}))[1:]
    hub.deliver(stories.JOB_ID, told(ended))
    assert listener.revisions == [1, 2]
    assert listener.bodies[-1].count(b"\n") == 3
    assert listener.states[-1]["result"] == {"text": "a\n\nid: 99\r\ndata: x\u2028"}


async def test_a_repeat_is_dropped() -> None:
    jobs = Jobs(COMPLETED[2])
    hub, listener = Hub(jobs), Listener()
    stream = listening(hub, listener)
    for revision in (1, 2, 2, 1, 3, 3, 2):
        hub.deliver(stories.JOB_ID, told(COMPLETED[2], revision))
    await settled(stream)
    assert listener.revisions == [1, 2, 3]
    assert jobs.reads == []


async def test_a_gap_is_filled_from_mongodb() -> None:
    jobs = Jobs(COMPLETED[3])
    hub, listener = Hub(jobs), Listener()
    stream = listening(hub, listener)
    hub.deliver(stories.JOB_ID, told(COMPLETED[3]))
    await settled(stream)
    assert listener.revisions == [1, 2, 3, 4]
    assert [state["progress"] for state in listener.states] == [10, 40, 70, 90]
    assert jobs.reads == [stories.JOB_ID]


async def test_what_arrives_while_mongodb_is_read_is_neither_lost_nor_told_out_of_order() -> None:
    jobs = Jobs(COMPLETED[2], pauses=lambda: 5)
    hub, listener = Hub(jobs), Listener()
    stream = listening(hub, listener)
    hub.deliver(stories.JOB_ID, told(COMPLETED[2]))
    await asyncio.sleep(0)
    assert listener.revisions == [1], "nothing is told until the gap is filled"
    jobs.jobs[stories.JOB_ID] = COMPLETED[4]
    for job in COMPLETED[3:]:
        hub.deliver(stories.JOB_ID, told(job))
    await settled(stream)
    assert listener.revisions == [1, 2, 3, 4, 5]
    assert listener.ended


async def test_what_arrives_before_the_first_state_is_told_after_it() -> None:
    """A stream is attached before its job is read: nothing can fall between the two."""
    jobs = Jobs(COMPLETED[2])
    hub, listener = Hub(jobs), Listener()
    stream = listener.open(hub)
    hub.deliver(stories.JOB_ID, told(COMPLETED[2]))
    assert listener.bodies == []
    hub.send_since(stream, COMPLETED[1], 1)
    await settled(stream)
    assert listener.revisions == [2, 3]


@pytest.mark.parametrize("had", range(6))
async def test_a_listener_who_comes_back_gets_what_it_missed(had: int) -> None:
    hub, listener = Hub(Jobs()), Listener()
    stream = listener.open(hub)
    hub.send_since(stream, COMPLETED[-1], had)
    assert listener.revisions == list(range(had + 1, 6))


async def test_a_job_without_listeners_costs_nothing() -> None:
    jobs = Jobs(COMPLETED[0])
    hub = Hub(jobs)
    hub.deliver(stories.JOB_ID, told(COMPLETED[1]))
    assert not hub.listens(stories.JOB_ID)
    assert jobs.reads == []


async def test_other_jobs_are_not_heard() -> None:
    other = "00000000-0000-4000-8000-000000000002"
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener)
    hub.deliver(other, told(course(stories.received(other), job_id=other)[1]))
    assert listener.revisions == [1]


async def test_a_state_is_encoded_once_for_each_language(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Language] = []

    def counted(job_id: str, state: JobProgressedData, language: Language) -> bytes:
        encoded.append(language)
        return api.state_json(job_id, state, language)

    hub, listeners = Hub(Jobs()), [Listener() for _ in range(50)]
    for number, listener in enumerate(listeners):
        listening(hub, listener, language="en" if number % 2 else "ko")
    failed = course(stories.failed(FailureCode.ANALYSIS_FAILED))[1]
    monkeypatch.setattr(hub_module, "api", SimpleNamespace(state_json=counted))
    hub.deliver(stories.JOB_ID, told(failed))
    assert sorted(encoded) == ["en", "ko"]
    assert {listener.states[-1]["error"]["message"] for listener in listeners[::2]} == {
        "분석 서버가 이 녹음을 분석하지 못했습니다."
    }
    assert {listener.states[-1]["error"]["message"] for listener in listeners[1::2]} == {
        "The analysis server could not analyse this recording."
    }


async def test_many_streams_hear_the_same() -> None:
    hub, listeners = Hub(Jobs()), [Listener() for _ in range(2000)]
    for listener in listeners:
        listening(hub, listener)
    for job in COMPLETED[1:]:
        hub.deliver(stories.JOB_ID, told(job))
    assert {tuple(listener.revisions) for listener in listeners} == {(1, 2, 3, 4, 5)}
    assert all(listener.ended for listener in listeners)


async def test_a_listener_who_reads_again_in_time_gets_all_of_it_in_order() -> None:
    hub, listener = Hub(Jobs()), Listener(stalled=True)
    listening(hub, listener)
    for job in COMPLETED[1:]:
        hub.deliver(stories.JOB_ID, told(job))
    assert listener.bodies == []
    listener.resume()
    await listener.until(lambda: listener.ended)
    assert listener.revisions == [1, 2, 3, 4, 5]


async def test_a_stream_sends_at_once_again_after_it_was_stalled() -> None:
    hub, listener = Hub(Jobs()), Listener(stalled=True)
    listening(hub, listener)
    listener.resume()
    await listener.until(lambda: listener.revisions == [1])
    await asyncio.sleep(0)
    hub.deliver(stories.JOB_ID, told(COMPLETED[1]))
    assert listener.revisions == [1, 2]


async def test_a_listener_who_does_not_read_is_dropped() -> None:
    hub, stalled, healthy = Hub(Jobs()), Listener(stalled=True), Listener()
    stream = listening(hub, stalled)
    listening(hub, healthy)
    for _ in range(MAX_WAITING):
        stream.write(HEARTBEAT)
    assert not stream.ended, "so much may wait"
    stream.write(HEARTBEAT)
    assert stream.ended
    assert stalled.aborted
    hub.deliver(stories.JOB_ID, told(COMPLETED[1]))
    await asyncio.sleep(0)
    assert stalled.bodies == []
    assert healthy.revisions == [1, 2]


async def test_a_listener_whose_connection_broke_keeps_nobody_from_hearing() -> None:
    hub, listeners = Hub(Jobs()), [Listener() for _ in range(3)]
    streams = [listening(hub, listener) for listener in listeners]
    streams[1].connection_lost(ConnectionResetError())
    hub.deliver(stories.JOB_ID, told(COMPLETED[1]))
    assert [listener.revisions for listener in listeners] == [[1, 2], [1], [1, 2]]
    assert [stream.ended for stream in streams] == [False, True, False]


async def test_a_connection_that_breaks_is_let_go() -> None:
    hub, listener = Hub(Jobs()), Listener(stalled=True)
    listening(hub, listener).connection_lost(None)
    assert not hub.listens(stories.JOB_ID)
    await hub.end_streams(1.0)


async def test_after_an_outage_of_the_broker_what_has_changed_is_read_again() -> None:
    others = [f"00000000-0000-4000-8000-{number:012}" for number in range(40)]
    jobs = Jobs(*(course(stories.received(job_id), job_id=job_id)[1] for job_id in others))
    hub, listeners = Hub(jobs), {job_id: Listener() for job_id in others}
    for job_id in others:
        listening(hub, listeners[job_id], stories.new_job(job_id))
    hub.refresh()
    for listener in listeners.values():
        await listener.until(lambda listener=listener: listener.revisions == [1, 2])  # type: ignore[misc] # mypy cannot infer a lambda with a default
    assert {tuple(listener.revisions) for listener in listeners.values()} == {(1, 2)}
    assert jobs.looks == [others]
    assert sorted(jobs.reads) == others
    assert jobs.most_at_once <= hub_module.CATCH_UP_READS


async def test_after_an_outage_of_the_broker_what_has_not_changed_is_not_read() -> None:
    jobs = Jobs(COMPLETED[0])
    hub, listener = Hub(jobs), Listener()
    listening(hub, listener)
    hub.refresh()
    await until_true(lambda: jobs.looks == [[stories.JOB_ID]], "a look at the job")
    assert jobs.reads == []


async def test_a_stream_whose_job_cannot_be_read_is_dropped_to_come_back() -> None:
    jobs = Jobs()
    jobs.error = ConnectionError("down")
    hub, listener = Hub(jobs), Listener()
    stream = listening(hub, listener)
    hub.deliver(stories.JOB_ID, told(COMPLETED[2]))
    await listener.until(lambda: listener.aborted)
    assert stream.ended


async def test_a_stream_whose_job_is_gone_is_dropped() -> None:
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener)
    hub.refresh()
    await listener.until(lambda: listener.aborted)


async def test_a_listener_who_left_is_not_read_for() -> None:
    jobs = Jobs(COMPLETED[1], pauses=lambda: 1000)
    hub, listener = Hub(jobs), Listener()
    stream = listening(hub, listener)
    hub.deliver(stories.JOB_ID, told(COMPLETED[3]))
    catching_up = stream.catching_up
    hub.detach(stream)
    assert catching_up is not None
    with suppress(asyncio.CancelledError):
        await catching_up
    assert listener.revisions == [1]
    assert not hub.listens(stories.JOB_ID)


async def test_a_process_that_is_full_says_so_until_somebody_leaves() -> None:
    hub = Hub(Jobs())
    streams = [Stream(stories.JOB_ID, "ko", hub.detach) for _ in range(MAX_STREAMS)]
    for stream in streams[:-1]:
        hub.attach(stream)
    assert not hub.is_full
    hub.attach(streams[-1])
    assert hub.is_full
    hub.detach(streams[0])
    assert not hub.is_full


class Clock:
    """Time that passes only when the hub sleeps, and then as fast as it will go; a test reads it between ticks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.ticked = asyncio.Event()
        monkeypatch.setattr(hub_module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": self._sleep}))

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds
        self.ticked.set()
        await asyncio.sleep(0)

    async def until(self, seconds: float) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            while self.now < seconds:
                self.ticked.clear()
                await self.ticked.wait()


async def test_every_stream_gets_a_heartbeat_in_time_and_never_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, beats = Clock(monkeypatch), dict[int, list[float]]()
    hub = Hub(Jobs(COMPLETED[0]))

    def noting(number: int) -> Callable[[bytes], None]:
        def note(data: bytes) -> None:
            if data == HEARTBEAT:
                beats.setdefault(number, []).append(clock.now)

        return note

    streams = HEARTBEAT_TICKS * 10
    for number in range(streams):
        hub.send_since(Listener(on_write=noting(number)).open(hub), COMPLETED[0], 1)
    hub.start()
    await clock.until(3 * hub_module.HEARTBEAT_SECONDS)
    hub.stop()
    assert len(beats) == streams
    for times in beats.values():
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert gaps == pytest.approx([hub_module.HEARTBEAT_SECONDS] * len(gaps))
    moments = [moment for times in beats.values() for moment in times]
    assert max(moments.count(moment) for moment in set(moments)) <= streams / HEARTBEAT_TICKS


async def test_nothing_is_sent_before_the_answer_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream is attached while its job is still being read."""
    clock, listener = Clock(monkeypatch), Listener()
    hub = Hub(Jobs())
    stream = Stream(stories.JOB_ID, "ko", hub.detach)
    hub.attach(stream)
    hub.start()
    await clock.until(3 * hub_module.HEARTBEAT_SECONDS)
    await hub.end_streams(1.0)
    hub.stop()
    listener.begin(stream)
    assert listener.bodies == []
    assert stream.heartbeats == 0


async def test_a_silent_streams_job_is_looked_at_and_what_was_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it was lost: a message that the broker dropped, a binding that somebody removed."""
    clock, jobs, listener = Clock(monkeypatch), Jobs(COMPLETED[0]), Listener()
    hub = Hub(jobs)
    listening(hub, listener)
    hub.start()
    await clock.until(2.5 * hub_module.HEARTBEAT_SECONDS)
    assert listener.revisions == [1]
    assert jobs.looks == [[stories.JOB_ID]]
    assert jobs.reads == [], "nothing has changed"
    jobs.jobs[stories.JOB_ID] = COMPLETED[-1]
    await clock.until(4.5 * hub_module.HEARTBEAT_SECONDS)
    await listener.until(lambda: listener.ended)
    hub.stop()
    assert listener.revisions == [1, 2, 3, 4, 5]


async def test_a_stream_that_is_told_something_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, jobs, listener = Clock(monkeypatch), Jobs(COMPLETED[0]), Listener()
    hub = Hub(jobs)
    listening(hub, listener)
    hub.start()
    for number, job in enumerate(COMPLETED[1:-1], 1):
        await clock.until((number - 0.5) * hub_module.HEARTBEAT_SECONDS)
        hub.deliver(stories.JOB_ID, told(job))
    hub.stop()
    assert jobs.looks == []


async def test_silent_streams_of_many_jobs_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, jobs = Clock(monkeypatch), Jobs()
    hub = Hub(jobs)
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(HEARTBEAT_TICKS * 5)]
    jobs.jobs = {job_id: stories.new_job(job_id) for job_id in ids}
    for job_id in ids:
        for _ in range(2):
            listening(hub, Listener(), stories.new_job(job_id))
    hub.start()
    await clock.until(2.9 * hub_module.HEARTBEAT_SECONDS)
    hub.stop()
    assert sorted(job_id for look in jobs.looks for job_id in set(look)) == sorted(ids * 2)
    assert len(jobs.looks) <= HEARTBEAT_TICKS, "one for each tick at most"


async def test_a_silent_stream_outlives_an_outage_of_mongodb(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, jobs, listener = Clock(monkeypatch), Jobs(COMPLETED[-1]), Listener()
    jobs.error = ConnectionError("down")
    hub = Hub(jobs)
    stream = listening(hub, listener)
    hub.start()
    await clock.until(2.5 * hub_module.HEARTBEAT_SECONDS)
    assert len(jobs.looks) == 1
    assert not stream.ended
    jobs.error = None
    await clock.until(4.5 * hub_module.HEARTBEAT_SECONDS)
    await listener.until(lambda: listener.ended)
    hub.stop()
    assert listener.revisions == [1, 2, 3, 4, 5]


async def test_a_silent_stream_whose_job_is_gone_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, hub, listener = Clock(monkeypatch), Hub(Jobs()), Listener()
    listening(hub, listener)
    hub.start()
    await clock.until(2.5 * hub_module.HEARTBEAT_SECONDS)
    await listener.until(lambda: listener.aborted)
    hub.stop()


RETRY = re.compile(rb"retry: (\d+)\n\n")


def retries(listener: Listener) -> list[int]:
    return [int(found[1]) for body in listener.bodies if (found := RETRY.fullmatch(body))]


async def test_a_process_that_stops_ends_its_streams_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    hub = Hub(Jobs())
    ended_at: list[float] = []

    def note(data: bytes) -> None:
        if data.endswith(LAST_CHUNK):
            ended_at.append(clock.now)

    listeners = [Listener(on_write=note) for _ in range(200)]
    for listener in listeners:
        listening(hub, listener)
    await hub.end_streams(15.0)
    assert all(listener.ended for listener in listeners)
    waits = [wait for listener in listeners for wait in retries(listener)]
    assert len(waits) == len(listeners), "each is told once when to come back"
    assert 1000 <= min(waits) < 1500
    assert 2500 < max(waits) <= 3000
    assert len(set(waits)) > 100
    assert max(ended_at.count(moment) for moment in ended_at) <= 2 * len(listeners) / hub_module.ENDING_TICKS
    assert max(ended_at) <= hub_module.ENDING_SECONDS + 0.2


async def test_a_process_without_streams_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, hub = Clock(monkeypatch), Hub(Jobs())
    await hub.end_streams(15.0)
    assert clock.now == 0


async def test_a_process_that_stops_takes_no_new_streams() -> None:
    hub = Hub(Jobs())
    assert not hub.is_full
    await hub.end_streams(1.0)
    assert hub.is_full


async def test_who_does_not_take_the_end_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ENDING_TICKS", 5)
    hub, stalled = Hub(Jobs()), Listener(stalled=True)
    listening(hub, stalled)
    async with asyncio.timeout(LIMIT_SECONDS):
        await hub.end_streams(0.05)
    assert stalled.aborted
    assert stalled.bodies == []


async def test_a_stream_that_begins_while_the_process_stops_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ENDING_SECONDS", 0.01)
    hub, listener = Hub(Jobs()), Listener()
    stream = Stream(stories.JOB_ID, "ko", hub.detach)
    hub.attach(stream)
    ending = asyncio.create_task(hub.end_streams(LIMIT_SECONDS))
    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.sleep(0)
        assert hub.is_ending
        listener.begin(stream)
        hub.send_since(stream, COMPLETED[1], 1)
        await ending
    assert (listener.revisions, len(retries(listener))) == ([2], 1)


async def test_a_stream_that_ended_by_itself_is_told_nothing_more() -> None:
    hub, listener = Hub(Jobs()), Listener()
    listening(hub, listener, COMPLETED[-1])
    bodies = list(listener.bodies)
    await hub.end_streams(1.0)
    assert listener.bodies == bodies


@pytest.mark.parametrize("begun", [True, False])
async def test_a_listener_hears_the_end_of_a_job_that_was_purged_before_all_was_read(begun: bool) -> None:
    hub, listener = Hub(Jobs()), Listener()
    purged = course(stories.received(), stories.stored(), stories.purged())
    stream = listener.open(hub)
    if begun:
        hub.send_since(stream, purged[0], 0)
    hub.deliver(stories.JOB_ID, told(purged[-1]))
    hub.deliver(stories.JOB_ID, told(purged[-1], 2))
    if not begun:
        hub.send_since(stream, purged[0], 0)
    await settled(stream)
    await listener.until(lambda: listener.ended)
    assert listener.states[-1]["status"] == "cancelled"
    assert listener.revisions[-1] == 4
    assert listener.revisions == sorted(set(listener.revisions))


def deliveries(job: Job, chance: random.Random) -> Iterable[JobProgressedData]:
    """What a broker may make of a job's states: repeated, out of order, and some of them lost."""
    revisions = [*range(2, job.revision + 1)] * 2
    chance.shuffle(revisions)
    return [told(job, revision) for revision in revisions[: chance.randrange(len(revisions) + 1)]]


@pytest.mark.parametrize("seed", range(150))
async def test_whatever_the_broker_does_a_stream_hears_every_state_once_and_in_order(seed: int) -> None:
    chance = random.Random(seed)
    jobs = Jobs(COMPLETED[0], pauses=lambda: chance.randrange(6))
    hub, listener = Hub(jobs), Listener(stalled=chance.random() < 0.2)
    begun = chance.randrange(len(COMPLETED))
    jobs.jobs[stories.JOB_ID] = COMPLETED[begun]
    stream = listener.open(hub)
    coming = list(deliveries(COMPLETED[-1], chance))
    had, opened = chance.randrange(COMPLETED[begun].revision + 1), False
    for _ in range(40):
        # What is told is always in MongoDB already: the notifier writes first.
        if chance.random() < 0.4 and begun < len(COMPLETED) - 1:
            begun += 1
            jobs.jobs[stories.JOB_ID] = COMPLETED[begun]
        told_now = [one for one in coming if one.revision <= COMPLETED[begun].revision]
        if told_now and chance.random() < 0.6:
            coming.remove(told_now[0])
            hub.deliver(stories.JOB_ID, told_now[0])
        if not opened and chance.random() < 0.3:
            opened = True
            found = await jobs.find(stories.JOB_ID)
            assert found is not None
            hub.send_since(stream, found, had)
        if chance.random() < 0.1:
            hub.refresh()
        await asyncio.sleep(0)
    jobs.jobs[stories.JOB_ID] = COMPLETED[-1]
    if not opened:
        hub.send_since(stream, COMPLETED[0], min(had, 1))
        had = min(had, 1)
    hub.refresh()
    listener.resume()
    await settled(stream)
    if had < COMPLETED[-1].revision:
        await listener.until(lambda: listener.ended)
    assert listener.revisions == list(range(had + 1, COMPLETED[-1].revision + 1))
