"""What clients of the gateway are limited in, and how those who have reached a limit are answered."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from chassis.clients import Proxies, counted_as
from chassis.methods import SAFE_METHODS
from chassis.quotas.answers import telling
from chassis.quotas.counts import Counts
from chassis.quotas.quota import REQUESTS, STREAMS, Quota, QuotaReachedError, Used
from contracts import problems
from contracts.events import JsonObject
from gateway.audio import ArrivingFile
from gateway.settings import Settings
from gateway.web.callers import STATE
from gateway.web.problems import ProblemError, problem_response

UPLOADS = Quota("uploads", "concurrent-requests", 5, is_held=True)
UPLOAD_BYTES = Quota("upload-bytes", "content-bytes", 24 * 3600)
JOBS_WAITING = Quota("jobs-waiting", "concurrent-requests", 30, is_held=True, is_measured=True)
_KINDS = {
    REQUESTS: problems.TOO_MANY_REQUESTS,
    UPLOADS: problems.TOO_MANY_UPLOADS,
    UPLOAD_BYTES: problems.TOO_MANY_BYTES,
    JOBS_WAITING: problems.TOO_MANY_JOBS,
}
_CLIENT = "sori.client"
"""By what name the request's client is counted; absent or None: it is not limited."""
_SUBJECT_TO = "sori.subject-to"
"""What the request was counted in so far, which its answer tells."""


def limits(settings: Settings) -> dict[Quota, int]:
    """Return the limit of each quota; streams are counted by the notifier, and told here."""
    return {
        REQUESTS: settings.limit_requests,
        UPLOADS: settings.limit_uploads,
        UPLOAD_BYTES: settings.limit_upload_bytes,
        JOBS_WAITING: settings.limit_jobs_waiting,
        STREAMS: settings.limit_streams,
    }


class ClientQuotas:
    """Counts what the clients of requests use. Nothing here waits for anything."""

    def __init__(self, counts: Counts, proxies: Proxies) -> None:
        self._counts = counts
        self._proxies = proxies

    async def serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request whose caller is known by now; have `app` answer it, or refuse it."""
        client = counted_as(scope, scope[STATE], self._proxies)
        if client is None:
            await app(scope, receive, send)
            return
        subject_to: list[Used] = []
        scope[_CLIENT], scope[_SUBJECT_TO] = client, subject_to
        request = Request(scope)
        try:
            with self._refusing(request):
                self._note(request, self._counts.take(client, REQUESTS))
        except ProblemError as error:
            app = problem_response(request, error.kind, close=error.close, more=error.headers)
        await app(scope, receive, telling(subject_to, send))

    def check(self, request: Request, *quotas: Quota) -> None:
        """Raise ProblemError when the client may use no more of one of them."""
        for quota in quotas:
            with self._refusing(request):
                self._note(request, self._counts.check(counted_client(request), quota))

    @contextmanager
    def held(self, request: Request, quota: Quota) -> Iterator[None]:
        """Hold one until the block ends; ProblemError when the client may hold no more."""
        client = counted_client(request)
        with self._refusing(request):
            self._note(request, self._counts.take(client, quota))
        try:
            yield
        finally:
            self._counts.give_back(client, quota)

    def add(self, request: Request, quota: Quota, amount: int) -> None:
        """Count what cannot be refused any more."""
        self._counts.add(counted_client(request), quota, amount)

    def counted(self, request: Request, file: ArrivingFile) -> ArrivingFile:
        """Return the file, whose bytes are counted as they arrive."""
        return _CountedFile(file, self._counts, counted_client(request))

    @contextmanager
    def _refusing(self, request: Request) -> Iterator[None]:
        try:
            yield
        except QuotaReachedError as error:
            self._note(request, error.used)
            close = request.method not in SAFE_METHODS
            headers = {"Retry-After": str(error.retry_after)}
            raise ProblemError(_KINDS[error.used.quota], close=close, headers=headers) from None

    @staticmethod
    def _note(request: Request, used: Used | None) -> None:
        if used is not None:
            request.scope[_SUBJECT_TO].append(used)


class _CountedFile:
    """A file that counts its bytes as they arrive."""

    def __init__(self, file: ArrivingFile, counts: Counts, client: str | None) -> None:
        self._file = file
        self._counts = counts
        self._client = client

    @property
    def filename(self) -> str | None:
        return self._file.filename

    @property
    def metadata(self) -> JsonObject | None:
        return self._file.metadata

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._file.chunks():
            self._counts.add(self._client, UPLOAD_BYTES, len(chunk))
            yield chunk


def counted_client(request: Request) -> str | None:
    """Return by what name the client of a request is counted; None when it is not limited."""
    return request.scope.get(_CLIENT)
