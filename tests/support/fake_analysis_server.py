"""A stand-in for the external analysis server that speaks its contract and misbehaves when asked to.

A request is answered at once with this server's own job id; the webhook follows after the delay. What
else happens is chosen per request by the token id (`video_id`): one of `BEHAVIOURS`, alone or followed by
`--` and anything (`http-400--7`), so that each test can have a token of its own. Any other token gets the
normal course. A normal result repeats what was asked (`video_id`, `s3_audio_url`), so that a test can tell
whether a result came to the right job. While `away` is set, every request is refused with that status; 0
closes its connection.

In a test: `async with FakeAnalysisServer() as server: ... server.url ... await server.request_for(token)`.
As a process: `python -m tests.support.fake_analysis_server`, with HOST, PORT, DELAY_SECONDS and
SLOW_SECONDS in the environment; `GET /requests` tells what it received, `DELETE /requests` forgets it;
`PUT /away/503` and `DELETE /away` set and clear `away`.
"""

import asyncio
import io
import json
import math
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

BEHAVIOURS: dict[str, str] = {
    "fail": "the webhook reports a failure",
    "slow": "the webhook comes after SLOW_SECONDS",
    "never-calls-back": "no webhook at all",
    "never-answers": "the request stays open until the caller gives up, and no webhook comes",
    "webhook-before-answer": "the webhook is called, and its answer awaited, before the request is answered",
    "calls-twice": "the same webhook twice",
    "contradicts-itself": "a webhook that reports success, then one that reports a failure",
    "http-400": "400, always",
    "http-500": "500, always",
    "http-500-once": "500 the first time, then the normal course",
    "http-500-once-then-fail": "500 the first time, then a webhook that reports a failure",
    "http-503-retry-after": "503 with `Retry-After: 1` the first time, then the normal course",
    "http-429-retry-date": "429 whose `Retry-After` is a date 3 s ahead the first time, then the normal course",
    "drops-connection": "the connection is closed without an answer, always",
    "drops-connection-once": "the same, the first time only",
    "not-json-answer": "200 whose body is no JSON, then the normal webhook",
    "huge-result": "a result larger than HUGE_RESULT_BYTES",
    "shape-success": '{"status": "success", "result"}',
    "shape-completed-result": '{"job_id", "status": "completed", "result"}',
    "shape-analysis-results": '{"job_id", "status": "completed", "video_id", "s3_audio_url", "analysis_results"}',
    "shape-failed": '{"job_id", "status": "failed", "error"}, as `fail`',
    "not-json-webhook": "a webhook whose body is no JSON",
    "wrong-signature": "one webhook, its signature replaced",
    "result-not-object": "a webhook whose result is a list",
}
HUGE_RESULT_BYTES = 1024 * 1024
FAILURE = "the recording could not be scored"

_FIRST_TIME_STATUS = {
    "http-500-once": 500,
    "http-500-once-then-fail": 500,
    "http-503-retry-after": 503,
    "http-429-retry-date": 429,
}
_EVERY_TIME_STATUS = {"http-400": 400, "http-500": 500}
_RECORDS_KEPT = 10_000


@dataclass
class WebhookCall:
    """One call of a webhook: when, and what came back (status None when nothing did)."""

    at: float
    status: int | None = None
    answer: str = ""


@dataclass
class ReceivedRequest:
    """One analysis request as it arrived; `attempt` counts those with the same `s3_audio_url` from 1."""

    at: float
    form: dict[str, str]
    attempt: int
    server_job_id: str
    accepted: bool = False
    """Whether the server has taken it on."""
    webhooks: list[WebhookCall] = field(default_factory=list)

    @property
    def token_id(self) -> str:
        """The token id that the request named as `video_id`."""
        return self.form.get("video_id", "")

    @property
    def webhook_url(self) -> str:
        """The address to call, just as it came."""
        return self.form.get("webhook_url", "")

    @property
    def job_id(self) -> str:
        """The caller's job id, from the webhook address's query; empty when it has none."""
        return parse_qs(urlsplit(self.webhook_url).query).get("job_id", [""])[0]

    @property
    def behaviour(self) -> str:
        """The name in BEHAVIOURS that the token id asks for, or `normal`."""
        name = self.token_id.split("--", 1)[0]
        return name if name in BEHAVIOURS else "normal"

    def result(self) -> dict[str, Any]:
        """The result that this request is given."""
        return {"video_id": self.token_id, "s3_audio_url": self.form.get("s3_audio_url", ""), "score": 87.5}


class FakeAnalysisServer:
    """The server: listens on `port` (a free one when that is 0), and remembers what it received."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        delay_seconds: float = 0.05,
        slow_seconds: float = 2.0,
    ) -> None:
        self.requests: deque[ReceivedRequest] = deque(maxlen=_RECORDS_KEPT)
        self.delay_seconds = delay_seconds
        self.slow_seconds = slow_seconds
        self.away: int | None = None
        self._host = host
        self._port = port
        self._attempts: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """What TARGET_SERVER_URL has to be."""
        return f"http://{self._host}:{self._port}/analyze-voice"

    async def start(self) -> None:
        """Listen; OSError when the port is taken."""
        # Close idle connections before any server does: a webhook must not be sent over one that is being closed.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
        self._client = aiohttp.ClientSession(connector=connector)
        app = web.Application()
        app.router.add_post("/analyze-voice", self._analyze)
        app.router.add_get("/requests", self._list_requests)
        app.router.add_delete("/requests", self._forget_requests)
        app.router.add_put("/away/{status}", self._go_away)
        app.router.add_delete("/away", self._come_back)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and drop the webhooks that are still to come."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        if self._runner:
            await self._runner.cleanup()
        if self._client:
            await self._client.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def requests_for(self, token_id: str) -> list[ReceivedRequest]:
        """Every request for this token so far, oldest first."""
        return [request for request in self.requests if request.token_id == token_id]

    def times_asked(self) -> dict[str, int]:
        """How often each recording was asked for so far, by its `s3_audio_url`."""
        return dict(self._attempts)

    def forget(self) -> None:
        """Empty the record; the next request for each recording counts as its first again."""
        self.requests.clear()
        self._attempts.clear()

    async def until(self, fact: Callable[[], bool], limit_seconds: float = 10.0) -> None:
        """Wait until `fact()` holds, looking whenever something arrived; TimeoutError after the limit."""
        async with asyncio.timeout(limit_seconds):
            while not fact():
                self._changed.clear()
                await self._changed.wait()

    async def request_for(self, token_id: str, count: int = 1, limit_seconds: float = 10.0) -> ReceivedRequest:
        """The `count`-th request for this token, waiting for it; TimeoutError after the limit."""
        await self.until(lambda: len(self.requests_for(token_id)) >= count, limit_seconds)
        return self.requests_for(token_id)[count - 1]

    async def webhook_of(self, request: ReceivedRequest, count: int = 1, limit_seconds: float = 10.0) -> WebhookCall:
        """The `count`-th webhook call of this request once it is over; TimeoutError after the limit."""
        await self.until(lambda: len(request.webhooks) >= count, limit_seconds)
        return request.webhooks[count - 1]

    async def call_webhook(self, request: ReceivedRequest, body: object, *, url: str | None = None) -> WebhookCall:
        """Call the request's webhook (or `url`) now; a body that is bytes is sent as it is, others as JSON."""
        if self._client is None:
            raise RuntimeError("the fake analysis server is not started")
        call = WebhookCall(at=time.time())
        content, kind = (body, "text/plain") if isinstance(body, bytes) else (_json(body), "application/json")
        try:
            address = URL(url or request.webhook_url, encoded=True)
            headers = {"Content-Type": kind}
            # As a file: aiohttp warns about large bodies that are bytes.
            async with self._client.post(address, data=io.BytesIO(content), headers=headers) as answer:
                call.status, call.answer = answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            call.answer = type(error).__name__
        request.webhooks.append(call)
        self._changed.set()
        return call

    async def _analyze(self, http_request: web.Request) -> web.StreamResponse:
        request = self._record({key: str(value) for key, value in (await http_request.post()).items()})
        if not request.form.get("s3_audio_url") or not request.webhook_url:
            return web.json_response({"detail": "s3_audio_url and webhook_url are needed"}, status=422)
        refusal = await self._refusal(http_request, request)
        if refusal is not None:
            return refusal
        request.accepted = True
        if request.behaviour == "webhook-before-answer":
            await self.call_webhook(request, _completed(request))
        elif request.behaviour != "never-calls-back":
            self._call_later(request)
        if request.behaviour == "not-json-answer":
            return web.Response(text="OK, working on it")
        return web.json_response({"job_id": request.server_job_id, "status": "processing"})

    def _record(self, form: dict[str, str]) -> ReceivedRequest:
        recording = form.get("s3_audio_url", "")
        attempt = self._attempts[recording] = self._attempts.get(recording, 0) + 1
        request = ReceivedRequest(time.time(), form, attempt, uuid.uuid4().hex)
        self.requests.append(request)
        self._changed.set()
        return request

    async def _refusal(self, http_request: web.Request, request: ReceivedRequest) -> web.Response | None:
        name, first = request.behaviour, request.attempt == 1
        if self.away:
            return web.json_response({"detail": "away"}, status=self.away)
        if name == "never-answers":
            await asyncio.Event().wait()
        if self.away == 0 or name == "drops-connection" or (name == "drops-connection-once" and first):
            if http_request.transport is not None:
                http_request.transport.abort()
            return web.Response(status=500)
        status = _EVERY_TIME_STATUS.get(name) or (_FIRST_TIME_STATUS.get(name) if first else None)
        if status is None:
            return None
        headers = {503: {"Retry-After": "1"}, 429: {"Retry-After": _http_date(3)}}.get(status)
        return web.json_response({"detail": "asked to refuse"}, status=status, headers=headers)

    def _call_later(self, request: ReceivedRequest) -> None:
        task = asyncio.create_task(self._call(request))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, request: ReceivedRequest) -> None:
        await asyncio.sleep(self.slow_seconds if request.behaviour == "slow" else self.delay_seconds)
        url = _with_wrong_signature(request.webhook_url) if request.behaviour == "wrong-signature" else None
        for body in _bodies(request):
            await self.call_webhook(request, body, url=url)

    async def _list_requests(self, http_request: web.Request) -> web.Response:
        wanted = http_request.query.get("video_id")
        found = [request for request in self.requests if wanted in (None, request.token_id)]
        return web.json_response([asdict(request) | {"job_id": request.job_id} for request in found])

    async def _go_away(self, http_request: web.Request) -> web.Response:
        self.away = int(http_request.match_info["status"])
        return web.json_response({"away": self.away})

    async def _come_back(self, _: web.Request) -> web.Response:
        self.away = None
        return web.json_response({"away": None})

    async def _forget_requests(self, _: web.Request) -> web.Response:
        self.forget()
        return web.json_response({"forgotten": True})


def _http_date(seconds_ahead: int) -> str:
    """A date in HTTP's format, at least `seconds_ahead`: the format has no fractions of a second, so round up."""
    return formatdate(math.ceil(time.time()) + seconds_ahead, usegmt=True)


def _json(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _completed(request: ReceivedRequest) -> dict[str, Any]:
    return {"job_id": request.server_job_id, "status": "completed", "result": request.result()}


def _failed(request: ReceivedRequest) -> dict[str, Any]:
    return {"job_id": request.server_job_id, "status": "failed", "error": FAILURE}


def _bodies(request: ReceivedRequest) -> list[object]:
    """The webhook bodies to send, in order."""
    completed = _completed(request)
    asked = {name: request.form.get(name, "") for name in ("video_id", "s3_audio_url")}
    head = {"job_id": request.server_job_id, "status": "completed"}
    unusual: dict[str, list[object]] = {
        "fail": [_failed(request)],
        "http-500-once-then-fail": [_failed(request)],
        "shape-failed": [_failed(request)],
        "calls-twice": [completed, completed],
        "contradicts-itself": [completed, _failed(request)],
        "shape-success": [{"status": "success", "result": request.result()}],
        "shape-analysis-results": [head | asked | {"analysis_results": request.result()}],
        "result-not-object": [head | {"result": [1, 2, 3]}],
        "not-json-webhook": [b"analysis complete"],
    }
    if request.behaviour == "huge-result":
        return [head | {"result": request.result() | {"blob": "x" * HUGE_RESULT_BYTES}}]
    return unusual.get(request.behaviour, [completed])


def _with_wrong_signature(url: str) -> str:
    return str(URL(url, encoded=True).update_query(signature="0" * 64))


async def _serve() -> None:
    server = FakeAnalysisServer(
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8100")),
        delay_seconds=float(os.environ.get("DELAY_SECONDS", "0.05")),
        slow_seconds=float(os.environ.get("SLOW_SECONDS", "2.0")),
    )
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with server:
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(_serve())
