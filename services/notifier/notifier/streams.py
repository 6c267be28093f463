"""The SSE endpoint (WHATWG HTML, section 9.2). A request is over once its stream has begun, which saves memory."""

import random
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from chassis.clients import Proxies, counted_as
from chassis.identity.caller import ANYBODY
from chassis.identity.challenges import challenge
from chassis.plain_http import TAKE_OVER, TakeOver
from chassis.quotas.answers import telling
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS, Quota, QuotaReachedError, Used
from contracts import problems
from contracts.failures import preferred_language
from contracts.job import Job, is_terminal
from contracts.problems import ProblemKind
from notifier.admission import Admission, Entry, RefusedError
from notifier.hub import Hub
from notifier.jobs import Jobs
from notifier.partitions import Partitions
from notifier.sse import Stream, reconnection

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 5
_KINDS = {REQUESTS: problems.TOO_MANY_REQUESTS, STREAMS: problems.TOO_MANY_STREAMS}
ALLOW = "GET, HEAD, OPTIONS"
LAST_EVENT_ID = {"lasteventid", "evslasteventid"}
"""What polyfills of EventSource call the query parameter that they send in place of the header, without `-` and `_`."""
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),  # it ends with the stream
]


class ProgressStreams:
    """Streams a job's progress. Errors in the request are answered before the stream starts.

    So is 503 by a process that is full, stops, or cannot read the job: the edge then asks another one, and tells a
    browser when to come back if all say so.
    """

    def __init__(
        self,
        hub: Hub,
        partitions: Partitions,
        jobs: Jobs,
        admission: Admission,
        *,
        counts: Counts,
        proxies: Proxies,
    ) -> None:
        self._admission = admission
        self._hub = hub
        self._partitions = partitions
        self._jobs = jobs
        self._counts = counts
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0, HTTP)."""
        request = Request(scope)
        job_id = _canonical(request.path_params["job_id"])
        if request.method == "OPTIONS":
            await Response(status_code=204, headers={"Allow": ALLOW})(scope, receive, send)
        elif request.method not in {"GET", "HEAD"}:
            await problem_response(request, problems.METHOD_NOT_ALLOWED)(scope, receive, send)
        elif job_id is None:
            await problem_response(request, problems.JOB_NOT_FOUND)(scope, receive, send)
        elif self._hub.is_full:
            await problem_response(request, problems.BUSY)(scope, receive, send)
        else:
            await self._admit(request, job_id, receive, send)

    async def _admit(self, request: Request, job_id: str, receive: Receive, send: Send) -> None:
        used: list[Used] = []
        send = telling(used, send)
        try:
            entry, client = await self._counted(request, used)
            self._count(client, STREAMS, used)
            language = preferred_language(request.headers.get("accept-language"))
            stream = Stream(job_id, language, self._left, entry.caller, client)
            # Attach, and hear the job's changes, before the job is read: so no change can be missed in between.
            self._hub.attach(stream)
            try:
                await self._serve(request, entry, stream, receive, send)
            finally:
                if not stream.has_begun:
                    self._left(stream)
        except RefusedError as refused:
            await problem_response(request, refused.kind)(request.scope, receive, send)
        except QuotaReachedError as reached:
            used.append(reached.used)
            await _too_many(request, reached)(request.scope, receive, send)

    async def _counted(self, request: Request, used: list[Used]) -> tuple[Entry, str | None]:
        """Return how the listener comes in and by what name it is counted; one who may not counts by its address."""
        try:
            entry = await self._admission.entry(request)
        except RefusedError:
            self._count(counted_as(request.scope, ANYBODY, self._proxies), REQUESTS, used)
            raise
        client = counted_as(request.scope, entry.caller, self._proxies)
        self._count(client, REQUESTS, used)
        return entry, client

    def _count(self, client: str | None, quota: Quota, used: list[Used]) -> None:
        if (taken := self._counts.take(client, quota)) is not None:
            used.append(taken)

    def _left(self, stream: Stream) -> None:
        self._hub.detach(stream)
        self._counts.give_back(stream.client, STREAMS)

    async def _serve(self, request: Request, entry: Entry, stream: Stream, receive: Receive, send: Send) -> None:
        """Send the stream's beginning and have it go on by itself. RefusedError when there is nothing to send."""
        job = await self._found(stream.job_id)
        if job is None or job.purge_asked_at is not None or not entry.sees(job):
            raise RefusedError(problems.JOB_NOT_FOUND)
        seen = _last_event_id(request)
        if seen is not None and seen >= job.revision and is_terminal(job.view.status):
            # A browser that is answered with 204 does not reconnect.
            await Response(status_code=204)(request.scope, receive, send)
            return
        if self._hub.is_ending:
            raise RefusedError(problems.UNAVAILABLE)
        if request.method == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._admission.let_in(entry, job)
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        take_over: TakeOver = request.scope["extensions"][TAKE_OVER]
        transport = take_over(stream)
        if transport is None:
            return
        stream.begin(transport)
        stream.write(reconnection())
        # Without an id the listener is sent the current state. An id beyond the job's revision counts as that revision.
        before_last = job.revision - 1
        self._hub.send_since(stream, job, before_last if seen is None else min(seen, job.revision))

    async def _found(self, job_id: str) -> Job | None:
        """Return the job as it is once this replica hears its changes; RefusedError when that cannot be known."""
        try:
            await self._partitions.enter(job_id)
            return await self._jobs.find(job_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the listener is told to come back
            log.warning("stream refused", job_id=job_id, reason=type(error).__name__)
            raise RefusedError(problems.UNAVAILABLE) from None


def _canonical(job_id: str) -> str | None:
    try:
        canonical = str(UUID(job_id))
    except ValueError:
        return None
    return canonical if canonical == job_id.lower() else None


def _last_event_id(request: Request) -> int | None:
    """Return the last revision that the listener had. The header wins; of several parameters the last is the newest."""
    asked = [value for name, value in request.query_params.multi_items() if _is_last_event_id(name)]
    values = [request.headers.get("last-event-id", ""), *reversed(asked)]
    return next((number for value in values if (number := _revision(value)) is not None), None)


def _is_last_event_id(name: str) -> bool:
    return name.lower().replace("-", "").replace("_", "") in LAST_EVENT_ID


def _revision(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdecimal() and len(value) < 10 else None  # noqa: PLR2004 - no revision is longer


def _too_many(request: Request, reached: QuotaReachedError) -> Response:
    """Return the answer to a listener who has reached a limit.

    An EventSource gives up for good on any status but 200: it gets an empty stream that says when to come back.
    """
    if "text/event-stream" in request.headers.get("accept", "").lower():
        later = 1000 * reached.retry_after * random.uniform(1, 1.5)  # noqa: S311 - jitter, not a secret
        headers = {"Cache-Control": "no-store"}
        return Response(f"retry: {later:.0f}\n\n", headers=headers, media_type="text/event-stream")
    response = problem_response(request, _KINDS[reached.used.quota])
    response.headers["Retry-After"] = str(reached.retry_after)
    return response


def problem_response(request: Request, kind: ProblemKind) -> Response:
    """Return the answer for `kind` in the caller's language (RFC 9457)."""
    language = preferred_language(request.headers.get("accept-language"))
    headers = {"Content-Language": language, "Cache-Control": "no-store", **challenge(kind)}
    if kind is problems.METHOD_NOT_ALLOWED:
        headers["Allow"] = ALLOW
    if kind.status == problems.UNAVAILABLE.status:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = kind.body(language).model_dump_json()
    return Response(body, kind.status, headers, media_type=problems.CONTENT_TYPE)
