"""The SSE endpoint: what is wrong is answered before a stream starts; a resumed stream has neither gap nor repeat."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from starlette.routing import Route, Router

from chassis.clients import Proxies
from chassis.identity.caller import ANYBODY
from chassis.plain_http import TAKE_OVER
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS, Quota
from contracts.job import Job
from notifier.admission import Admission, Entry
from notifier.hub import Hub
from notifier.partitions import Partitions
from notifier.sse import MAX_WAITING, Stream
from notifier.streams import ProgressStreams
from tests.support.notifier_jobs import Jobs
from tests.unit.notifier.test_hub import COMPLETED, Listener, course, told
from tests.unit.stories import COURSES, JOB_ID

LIMIT_SECONDS = 5.0
BROWSER = {"Accept": "text/event-stream"}
"""What an EventSource sends."""
FAILED = course(*COURSES["failed"])


class Request:
    """One request to the endpoint, as the server would make it; a stream's body goes to its `connection`."""

    def __init__(self, app: Router, job_id: str, method: str, headers: dict[str, str], query: str) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.connection = Listener()
        self.is_gone = False
        self._body = b""
        self._ended = False
        path = f"/tokens/analysis-progress/{job_id}"
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        asked = {"method": method, "path": path, "query_string": query.encode()}
        extensions = {TAKE_OVER: self._hand_over}
        scope = {"type": "http", **asked, "headers": raw, "root_path": "", "extensions": extensions}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def until(self, part: bytes) -> None:
        await self.connection.until(lambda: part in self.body)

    async def answered(self) -> None:
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.wait([self.task])
        assert self.task.exception() is None
        if self.connection.stream is not None:
            await self.connection.until(lambda: self.ended or self.connection.aborted)
            await asyncio.sleep(0)  # the connection is lost then

    def leave(self) -> None:
        """Close the connection from this end."""
        self.is_gone = True
        if self.connection.stream is not None:
            self.connection.stream.connection_lost(None)

    @property
    def body(self) -> bytes:
        return self._body + b"".join(self.connection.bodies)

    @property
    def ended(self) -> bool:
        return self._ended or self.connection.ended

    @property
    def revisions(self) -> list[int]:
        return self.connection.revisions

    def _hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport | None:
        assert self.status == 200, "a body before its start"
        assert isinstance(protocol, Stream)
        if self.is_gone:
            return None
        self.connection.stream = protocol
        return self.connection

    async def _receive(self) -> dict[str, Any]:
        raise AssertionError("a stream's request has no body, and is over when it has begun")

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            assert self.status, "a body before its start"
            self._body += message["body"]
            self._ended = not message.get("more_body", False)


class Bindings:
    """The keys that a process hears; binding one takes until `go` is set."""

    def __init__(self) -> None:
        self.bound: list[str] = []
        self.go = asyncio.Event()
        self.go.set()

    async def bind(self, key: str) -> None:
        await self.go.wait()
        self.bound.append(key)

    def unbind(self, key: str) -> None:
        self.bound.remove(key)


class Anybody:
    """Lets everybody in."""

    async def entry(self, _: object) -> Entry:
        return Entry(ANYBODY)

    async def let_in(self, entry: Entry, job: Job) -> None:
        pass


class Service:
    """The endpoint with its hub and a collection in memory."""

    def __init__(self, *jobs: Job, limits: Mapping[Quota, int] | None = None) -> None:
        self.jobs = Jobs(*jobs)
        self.hub = Hub(self.jobs)
        self.bindings = Bindings()
        # Of the collection the endpoint only uses `find`.
        streams = ProgressStreams(
            self.hub,
            Partitions(self.bindings, self.hub.listened),
            self.jobs,
            cast(Admission, Anybody()),
            counts=Counts(limits or {}, lambda: 0.0),  # no window ends
            proxies=Proxies([]),
        )
        self._app = Router([Route("/tokens/analysis-progress/{job_id}", endpoint=streams)])

    @asynccontextmanager
    async def request(
        self, job_id: str = JOB_ID, method: str = "GET", query: str = "", **headers: str
    ) -> AsyncIterator[Request]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(self._app, job_id, method, sent, query)
        try:
            yield request
        finally:
            request.leave()
            await asyncio.wait([request.task])


def retry(request: Request) -> int:
    """When the listener was told to reconnect, in milliseconds."""
    found = re.match(rb"retry: (\d+)\n\n", request.body)
    assert found, request.body
    return int(found[1])


async def test_a_new_listener_is_told_how_the_job_stands() -> None:
    service = Service(COMPLETED[2])
    async with service.request() as request:
        await request.until(b"id: 3")
        assert request.status == 200
        assert request.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert request.headers["cache-control"] == "no-store"
        assert request.headers["x-accel-buffering"] == "no"
        assert 1000 <= retry(request) <= 3000
        assert request.revisions == [3]
        service.hub.deliver(JOB_ID, told(COMPLETED[3]))
        service.hub.deliver(JOB_ID, told(COMPLETED[4]))
        await request.answered()
    assert request.revisions == [3, 4, 5]
    assert request.ended


@pytest.mark.parametrize(
    ("last_event_id", "revisions"),
    [
        ("0", [1, 2, 3, 4]),
        ("1", [2, 3, 4]),
        ("3", [4]),
        ("4", []),
        ("99", []),
        ("999999999", []),
        # What no stream of ours has sent counts as none.
        ("", [4]),
        ("-1", [4]),
        ("1.5", [4]),
        ("abc", [4]),
        ("²", [4]),
        ("9" * 5000, [4]),
    ],
)
async def test_a_listener_resumes_after_its_last_event_id(last_event_id: str, revisions: list[int]) -> None:
    service = Service(COMPLETED[3])
    async with service.request(Last_Event_ID=last_event_id) as request:
        await request.until(b"retry")
        await asyncio.sleep(0)
        assert request.revisions == revisions
        service.hub.deliver(JOB_ID, told(COMPLETED[4]))
        await request.answered()
    assert request.revisions == [*revisions, 5]


@pytest.mark.parametrize(
    ("query", "header", "revisions"),
    [
        ("lastEventId=3", None, [4]),
        ("lastEventID=3", None, [4]),
        ("last-event-id=3", None, [4]),
        ("Last-Event-ID=3", None, [4]),
        ("last_event_id=3", None, [4]),
        ("evs_preamble=2056&evs_last_event_id=3", None, [4]),
        ("r=1&lastEventId=1&lastEventId=3", None, [4]),
        ("lastEventId=1", "3", [4]),
        ("lastEventId=3", "nonsense", [4]),
        ("lastEventId=3", "", [4]),
        ("lastEventId=nonsense", None, [4]),
        ("lastEventId=-1", None, [4]),
        ("lastEventId=", None, [4]),
        ("lastEventId=0", None, [1, 2, 3, 4]),
        ("eventId=0", None, [4]),
        ("%FF=0&;&=&lastEventId=%FF", None, [4]),
    ],
)
async def test_a_polyfill_resumes_by_its_address(query: str, header: str | None, revisions: list[int]) -> None:
    headers = {} if header is None else {"Last_Event_ID": header}
    async with Service(COMPLETED[3]).request(query=query, **headers) as request:
        await request.until(b"id: 4")
    assert request.revisions == revisions


async def test_a_polyfill_that_has_had_the_end_is_told_not_to_come_back() -> None:
    async with Service(COMPLETED[-1]).request(query="lastEventId=5") as request:
        await request.answered()
    assert (request.status, request.body) == (204, b"")


@pytest.mark.parametrize(("job", "headers"), [(COMPLETED[1], {}), (COMPLETED[-1], {}), (COMPLETED[1], BROWSER)])
async def test_head_gets_a_streams_headers_and_no_stream(job: Job, headers: dict[str, str]) -> None:
    service = Service(job)
    async with service.request(method="HEAD", **headers) as request:
        await request.answered()
    assert (request.status, request.body, request.ended) == (200, b"", True)
    assert request.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert not service.hub.listens(JOB_ID)


async def test_head_of_an_unknown_job_is_404() -> None:
    async with Service().request(method="HEAD") as request:
        await request.answered()
    assert request.status == 404


async def test_the_methods_of_a_stream_are_told() -> None:
    async with Service().request(method="OPTIONS") as request:
        await request.answered()
    assert (request.status, request.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize(("ended", "last"), [(COMPLETED[-1], "5"), (COMPLETED[-1], "6"), (FAILED[-1], "5")])
async def test_who_has_had_the_end_is_told_not_to_come_back(ended: Job, last: str) -> None:
    service = Service(ended)
    async with service.request(Last_Event_ID=last) as request:
        await request.answered()
    assert (request.status, request.body) == (204, b"")


async def test_who_has_not_had_the_end_gets_it_and_the_stream_ends() -> None:
    service = Service(FAILED[-1])
    async with service.request(Last_Event_ID="3", Accept_Language="en") as request:
        await request.answered()
    assert request.revisions == [4, 5]
    state = json.loads(request.body.rsplit(b"data: ", 1)[1])
    assert state["error"] == {
        "code": "analysis_failed",
        "message": "The analysis server could not analyse this recording.",
    }
    assert not service.hub.listens(JOB_ID)


@pytest.mark.parametrize(
    "job_id",
    [
        "00000000-0000-4000-8000-000000000000",
        "unknown",
        "1",
        "%00",
        JOB_ID.replace("-", ""),
        f"{{{JOB_ID}}}",
        f"urn:uuid:{JOB_ID}",
        "x" * 5000,
        "소리",
    ],
)
async def test_an_unknown_job_is_404_before_any_stream_starts(job_id: str) -> None:
    service = Service(COMPLETED[0])
    async with service.request(job_id) as request:
        await request.answered()
    assert (request.status, json.loads(request.body)["code"]) == (404, "job_not_found")
    assert request.headers["content-type"] == "application/problem+json"
    assert request.headers["content-language"] == "ko"


async def test_an_id_in_capitals_is_the_same_job() -> None:
    async with Service(COMPLETED[-1]).request(JOB_ID.upper()) as request:
        await request.answered()
    assert (request.status, request.revisions) == (200, [5])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_stream_is_for_get_alone(method: str) -> None:
    service = Service(COMPLETED[0])
    async with service.request(method=method) as request:
        await request.answered()
    assert (request.status, request.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_an_outage_of_mongodb_is_503_and_says_when_to_come_back() -> None:
    service = Service(COMPLETED[0])
    service.jobs.error = ConnectionError("mongodb://user:password@host is down")
    async with service.request(Accept_Language="en") as request:
        await request.answered()
    assert (request.status, json.loads(request.body)["code"]) == (503, "unavailable")
    assert int(request.headers["retry-after"]) > 0
    assert b"password" not in request.body
    assert not service.hub.listens(JOB_ID)


async def test_a_browser_gets_the_same_503_which_the_edge_takes_elsewhere() -> None:
    service = Service(COMPLETED[0])
    service.jobs.error = ConnectionError("down")
    async with service.request(**BROWSER) as request:
        await request.answered()
    assert (request.status, json.loads(request.body)["code"]) == (503, "unavailable")


async def test_the_job_is_read_once_its_partition_is_bound() -> None:
    service = Service(COMPLETED[1])
    service.bindings.go.clear()
    async with service.request() as request:
        await asyncio.sleep(0)
        assert service.hub.listens(JOB_ID)
        assert service.jobs.reads == []
        service.bindings.go.set()
        await request.until(b"id: 2")
    assert service.bindings.bound == [JOB_ID[:2]]
    assert service.jobs.reads == [JOB_ID]


async def test_an_unknown_job_is_404_for_a_browser_too() -> None:
    async with Service().request(**BROWSER) as request:
        await request.answered()
    assert request.status == 404


async def test_a_process_that_stops_sends_its_listeners_away_and_they_resume_elsewhere() -> None:
    stopping, other = Service(COMPLETED[1]), Service(COMPLETED[-1])
    async with stopping.request(**BROWSER) as request:
        await request.until(b"id: 2")
        await stopping.hub.end_streams(1.0)
        await request.answered()
        assert (request.status, request.revisions, request.ended) == (200, [2], True)
        assert len(re.findall(rb"retry: \d+\n\n", request.body)) == 2
    async with other.request(**BROWSER, Last_Event_ID="2") as request:
        await request.answered()
    assert request.revisions == [3, 4, 5]


async def test_a_listener_whose_job_is_still_read_when_the_process_stops_is_sent_away() -> None:
    service = Service(COMPLETED[1])
    async with service.request(**BROWSER) as request:
        await asyncio.sleep(0)
        assert service.jobs.reads == [JOB_ID], "the read is under way"
        await service.hub.end_streams(1.0)
        await request.answered()
    assert (request.status, json.loads(request.body)["code"]) == (503, "unavailable")


async def test_a_full_process_is_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.hub.MAX_STREAMS", 1)
    service = Service(COMPLETED[0])
    async with service.request() as first:
        await first.until(b"id: 1")
        async with service.request() as second:
            await second.answered()
        assert (second.status, json.loads(second.body)["code"]) == (503, "busy")
    async with service.request() as third:
        await third.until(b"id: 1")


async def test_what_happens_while_the_job_is_read_is_not_lost() -> None:
    service = Service(COMPLETED[1])
    async with service.request() as request:
        await asyncio.sleep(0)
        assert service.jobs.reads == [JOB_ID], "the read is under way"
        service.jobs.jobs[JOB_ID] = COMPLETED[2]
        service.hub.deliver(JOB_ID, told(COMPLETED[2]))
        await request.until(b"id: 3")
        assert request.revisions == [2, 3]


async def test_a_listener_who_leaves_is_forgotten() -> None:
    service = Service(COMPLETED[0])
    async with service.request() as request:
        await request.until(b"id: 1")
        assert request.task.done(), "only the connection is kept"
        assert service.hub.listens(JOB_ID)
        request.leave()
        assert not service.hub.listens(JOB_ID)


async def test_a_listener_who_leaves_while_the_job_is_read_is_forgotten() -> None:
    service = Service(COMPLETED[0])
    async with service.request() as request:
        await asyncio.sleep(0)
        request.is_gone = True
        await request.answered()
    assert not service.hub.listens(JOB_ID)


async def test_a_stalled_listener_is_dropped_and_its_request_ends() -> None:
    service = Service(COMPLETED[0])
    async with service.request() as request:
        await request.until(b"id: 1")
        request.connection.stall()
        for revision in range(2, MAX_WAITING + 4):
            service.hub.deliver(JOB_ID, told(COMPLETED[0]).model_copy(update={"revision": revision}))
        await request.answered()
        assert request.connection.aborted
    assert not service.hub.listens(JOB_ID)


async def test_a_request_that_is_cancelled_while_the_job_is_read_is_forgotten() -> None:
    service = Service(COMPLETED[0])
    async with service.request() as request:
        await asyncio.sleep(0)
        request.task.cancel()
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.wait([request.task])
        assert request.task.cancelled()
    assert not service.hub.listens(JOB_ID)


async def test_a_client_has_as_many_streams_as_the_limit_allows() -> None:
    service = Service(FAILED[-2], limits={STREAMS: 1})
    async with service.request() as first:
        await first.until(b"data:")
        assert first.headers["ratelimit"] == '"streams";r=0'
        async with service.request() as second:
            await second.answered()
            assert second.status == 429
            assert json.loads(second.body)["code"] == "too_many_streams"
            assert int(second.headers["retry-after"]) > 0
            assert second.headers["ratelimit-policy"] == '"streams";q=1;qu="concurrent-requests"'
        first.leave()
        async with service.request() as third:
            await third.until(b"data:")
    assert not service.hub.listens(JOB_ID)


@pytest.mark.parametrize("quota", [STREAMS, REQUESTS], ids=lambda quota: quota.name)
async def test_a_browser_that_has_reached_a_limit_is_told_when_to_come_back(quota: Quota) -> None:
    service = Service(FAILED[-2], limits={quota: 1})
    async with service.request(**BROWSER) as first:
        await first.until(b"data:")
        async with service.request(**BROWSER) as second:
            await second.answered()
            assert second.status == 200, "an EventSource gives up for good on any other"
            assert second.headers["content-type"].startswith("text/event-stream")
            assert (retry := re.fullmatch(rb"retry: (\d+)\n\n", second.body))
            assert 1000 <= int(retry[1]) <= 90_000


async def test_a_stream_that_never_began_is_not_counted() -> None:
    service = Service(FAILED[-2], limits={STREAMS: 1})
    for _ in range(3):
        async with service.request(method="HEAD") as head:
            await head.answered()
            assert head.status == 200
        async with service.request("00000000-0000-4000-8000-000000000000") as unknown:
            await unknown.answered()
            assert unknown.status == 404
