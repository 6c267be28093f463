"""What the gateway refuses, and how every error becomes a problem body (RFC 9457) in the caller's language.

ProblemError ── carries one of contracts.problems and the headers that go with it
BackEndError ── (chassis.errors) storage, database or broker did not answer; becomes `unavailable`
AudioGoneError ── (gateway.audio) audio was removed after it had been found; each route says what that means to it
CatalogueError ── (gateway.catalogue.rows) becomes the problem that gateway.catalogue.requests has for it
"""

import asyncio
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from chassis.errors import BackEndError
from contracts import api, problems
from contracts.failures import Language, preferred_language
from contracts.problems import FieldProblem, ProblemKind
from gateway.web.wrong_fields import wrong_fields

log = structlog.get_logger()

_SHARED = api.SHARED_PATH.partition("{")[0]
RETRY_AFTER_SECONDS = 5
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending before the connection is cut."""


class ProblemError(Exception):
    """A request that cannot be served, for a reason that the caller is told."""

    def __init__(self, kind: ProblemKind, *, close: bool = False, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind.code)
        self.kind = kind
        self.close = close
        self.headers = headers or {}


def problem_response(
    request: Request,
    kind: ProblemKind,
    *,
    close: bool = False,
    more: Mapping[str, str] | None = None,
    errors: list[FieldProblem] | None = None,
) -> Response:
    """Return the answer for `kind`; with `close`, nothing more is read from this connection."""
    language = _language(request)
    headers = {"Content-Language": language, "Cache-Control": "no-store", **(more or {})}
    if kind.status == problems.UNAVAILABLE.status:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = kind.body(language, errors).model_dump_json()
    if close:
        headers["Connection"] = "close"
    response = _LastResponse if close else Response
    return response(body, kind.status, headers, media_type=problems.CONTENT_TYPE)


def handle_errors(app: FastAPI) -> None:
    """Make every error of `app` a problem body."""
    # Starlette types handlers by Exception; each is called with the class it is registered for.
    app.add_exception_handler(ProblemError, _on_problem)  # type: ignore[arg-type] # as above
    app.add_exception_handler(BackEndError, _on_back_end)  # type: ignore[arg-type] # as above
    app.add_exception_handler(HTTPException, _on_http)  # type: ignore[arg-type] # as above
    app.add_exception_handler(RequestValidationError, _on_invalid)  # type: ignore[arg-type] # as above
    app.add_exception_handler(ClientDisconnect, _on_gone)  # type: ignore[arg-type] # as above
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_problem(request: Request, error: ProblemError) -> Response:
    return problem_response(request, error.kind, close=error.close, more=error.headers)


async def _on_back_end(request: Request, error: BackEndError) -> Response:
    return unavailable_response(request, error)


def unavailable_response(request: Request, error: BackEndError) -> Response:
    """Return the answer for a back end that did not do what a request needs."""
    # What the driver raised, where it did: `error.reason` may be S3's own code instead.
    cause = error.reason if error.__cause__ is None else type(error.__cause__).__name__
    log.warning("request refused", reason=f"{error.back_end} is unavailable", cause=cause, path=_logged_path(request))
    return problem_response(request, problems.UNAVAILABLE, close=True)


async def _on_http(request: Request, error: HTTPException) -> Response:
    known = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED}
    kind = known.get(error.status_code, problems.REQUEST_INVALID)
    return problem_response(request, kind, more=error.headers)  # a 405 has an Allow header


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    errors = wrong_fields(error.errors(), _language(request))
    return problem_response(request, problems.REQUEST_INVALID, errors=errors)


async def _on_gone(request: Request, _: ClientDisconnect) -> Response:
    log.info("client went away", path=_logged_path(request))
    return Response(status_code=400)


async def _on_unexpected(request: Request, _: Exception) -> Response:
    # Starlette raises the error again, and the server logs it together with the fields that are bound here.
    structlog.contextvars.bind_contextvars(path=_logged_path(request))
    return problem_response(request, problems.INTERNAL_ERROR, close=True)


def _logged_path(request: Request) -> str:
    """Return the address as it may be logged: a share link's is a secret."""
    path = request.url.path
    return f"{_SHARED}…" if path.startswith(_SHARED) else path


def _language(request: Request) -> Language:
    return preferred_language(request.headers.get("accept-language"))


class _LastResponse(Response):
    """Answers at once, then reads on for a moment: closing with bytes unread would reset the connection too early."""

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": bytes(self.body), "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})
