"""What the gateway refuses, and how every error becomes a problem body (RFC 9457) in the caller's language.

ProblemError ── carries one of contracts.problems and the headers that go with it
CatalogueError ── the catalogue's own (gateway.catalogue): each becomes the problem that _CATALOGUE has for it
BackEndError ── storage, database or broker did not answer; becomes `unavailable`
AudioGoneError ── a recording was removed after it had been found; each route says what that means to it
"""

import asyncio
from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from contracts import problems
from contracts.failures import Language, preferred_language
from contracts.problems import FieldProblem, ProblemKind
from gateway.catalogue import (
    ActorExistsError,
    ActorNotFoundError,
    CatalogueError,
    ChangedError,
    ScriptNotFoundError,
    TokenNotFoundError,
    TooManyScriptsError,
    entity_tag,
)
from gateway.wrong_fields import wrong_fields

log = structlog.get_logger()

RETRY_AFTER_SECONDS = 5
LINGER_SECONDS = 2.0
"""How long a refused client may go on sending before the connection is cut."""

_CATALOGUE: dict[type[CatalogueError], ProblemKind] = {
    TokenNotFoundError: problems.TOKEN_NOT_FOUND,
    ScriptNotFoundError: problems.SCRIPT_NOT_FOUND,
    ActorNotFoundError: problems.ACTOR_NOT_FOUND,
    ActorExistsError: problems.ACTOR_EXISTS,
    TooManyScriptsError: problems.TOO_MANY_SCRIPTS,
    ChangedError: problems.PRECONDITION_FAILED,
}


class ProblemError(Exception):
    """A request that cannot be served, for a reason that the caller is told."""

    def __init__(self, kind: ProblemKind, *, close: bool = False, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(kind.code)
        self.kind = kind
        self.close = close
        self.headers = headers or {}


class BackEndError(Exception):
    """A back end did not do what was asked of it; `back_end` names it for the log."""

    def __init__(self, back_end: str) -> None:
        super().__init__(f"{back_end} is unavailable")
        self.back_end = back_end


class AudioGoneError(Exception):
    """A recording was removed after it had been found."""


def problem_response(
    request: Request,
    kind: ProblemKind,
    *,
    close: bool = False,
    more: Mapping[str, str] | None = None,
    errors: list[FieldProblem] | None = None,
) -> Response:
    """Return the answer for `kind`; `close` says that nothing more is read from this connection."""
    language = _language(request)
    headers = {"Content-Language": language, "Cache-Control": "no-store", **(more or {})}
    if kind.status == problems.UNAVAILABLE.status:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = kind.body(language, errors).model_dump_json()
    if close:
        headers["Connection"] = "close"
    response = _LastResponse if close else Response
    return response(body, kind.status, headers, media_type=problems.CONTENT_TYPE)


class _LastResponse(Response):
    """Answers at once, then reads on for a moment: closing with bytes unread would reset the answer away."""

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


def _language(request: Request) -> Language:
    return preferred_language(request.headers.get("accept-language"))


def _name(cause: BaseException | None) -> str:
    return "no answer" if cause is None else type(cause).__name__


def handle_errors(app: FastAPI) -> None:
    """Make every error of `app` a problem body; what nobody expected is logged by the server that `app` runs in."""

    async def on_problem(request: Request, error: ProblemError) -> Response:
        return problem_response(request, error.kind, close=error.close, more=error.headers)

    async def on_back_end(request: Request, error: BackEndError) -> Response:
        log.warning("request refused", reason=str(error), cause=_name(error.__cause__), path=request.url.path)
        return problem_response(request, problems.UNAVAILABLE, close=True)

    async def on_http(request: Request, error: HTTPException) -> Response:
        known = {404: problems.NOT_FOUND, 405: problems.METHOD_NOT_ALLOWED}
        kind = known.get(error.status_code, problems.REQUEST_INVALID)
        return problem_response(request, kind, more=error.headers)  # Allow, with a 405

    async def on_catalogue(request: Request, error: CatalogueError) -> Response:
        more = {"ETag": entity_tag(error.revision)} if isinstance(error, ChangedError) else None
        return problem_response(request, _CATALOGUE[type(error)], more=more)

    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        errors = wrong_fields(error.errors(), _language(request))
        return problem_response(request, problems.REQUEST_INVALID, errors=errors)

    async def on_gone(request: Request, _: ClientDisconnect) -> Response:
        log.info("client went away", path=request.url.path)
        return Response(status_code=400)

    async def on_unexpected(request: Request, _: Exception) -> Response:
        # Starlette raises the error again for the server, which logs it with what is bound here.
        structlog.contextvars.bind_contextvars(path=request.url.path)
        return problem_response(request, problems.INTERNAL_ERROR, close=True)

    # Starlette types handlers by Exception; each is called with the class it is registered for.
    app.add_exception_handler(ProblemError, on_problem)  # type: ignore[arg-type] # as above
    app.add_exception_handler(CatalogueError, on_catalogue)  # type: ignore[arg-type] # as above
    app.add_exception_handler(BackEndError, on_back_end)  # type: ignore[arg-type] # as above
    app.add_exception_handler(HTTPException, on_http)  # type: ignore[arg-type] # as above
    app.add_exception_handler(RequestValidationError, on_invalid)  # type: ignore[arg-type] # as above
    app.add_exception_handler(ClientDisconnect, on_gone)  # type: ignore[arg-type] # as above
    app.add_exception_handler(Exception, on_unexpected)
