"""What the routes of the catalogue share: ids, parts of lists, preconditions, entity tags, small bodies."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from contracts import problems
from contracts.catalogue import LARGEST_ID, NAME_CHARACTERS
from gateway.availability import Availability
from gateway.catalogue import (
    ActorNotFoundError,
    CatalogueError,
    Expected,
    Kept,
    Page,
    ScriptNotFoundError,
    TokenNotFoundError,
    expected_revisions,
    row_id,
)
from gateway.errors import ProblemError

MAX_BODY_BYTES = 64 * 1024
ROWS_PER_PAGE = 20
MAX_ROWS_PER_PAGE = 100

Row = TypeVar("Row")


def _id_in_address(name: str, unknown: type[CatalogueError]) -> Any:
    """Return what reads a row's id from an address; no row has an id that is no integer."""

    def read(given: Annotated[str, Path(alias=name, json_schema_extra={"type": "integer"})]) -> int:
        found = row_id(given)
        if found is None:
            raise unknown
        return found

    return Depends(read)


def _page(
    skip: Annotated[int, Query(ge=0, le=LARGEST_ID, description="How many to pass over")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS_PER_PAGE, description="How many to list at most")] = ROWS_PER_PAGE,
) -> Page:
    return Page(skip, limit)


def _expected(
    if_match: Annotated[
        list[str] | None,
        Header(description="The `ETag` that the row was read with; if it was changed since then, nothing is done"),
    ] = None,
) -> Expected:
    return expected_revisions(if_match or ())


TokenNumber = Annotated[int, _id_in_address("token_id", TokenNotFoundError)]
ScriptNumber = Annotated[int, _id_in_address("script_id", ScriptNotFoundError)]
ActorNumber = Annotated[int, _id_in_address("actor_id", ActorNotFoundError)]
ListPage = Annotated[Page, Depends(_page)]
ExpectedRevisions = Annotated[Expected, Depends(_expected)]
NAME_PATTERN = r"^[^\x00-\x1f\x7f]*$"
NameText = Annotated[str, Query(max_length=NAME_CHARACTERS, pattern=NAME_PATTERN)]


def catalogue_router(tag: str, back_ends: Availability) -> APIRouter:
    """Return a router whose calls are refused at once while MongoDB is away, and when their bodies are large."""

    async def mongodb_is_up() -> None:
        await back_ends.require("MongoDB")

    return APIRouter(tags=[tag], route_class=_SmallBodyRoute, dependencies=[Depends(mongodb_is_up)])


def tagged(response: Response, kept: Kept[Row]) -> Row:
    """Return a row, telling its revision with it."""
    response.headers["ETag"] = kept.etag
    return kept.row


def known(kept: Kept[Row] | None, unknown: type[CatalogueError]) -> Kept[Row]:
    """Return a row that must be there."""
    if kept is None:
        raise unknown
    return kept


class _SmallBodyRoute(APIRoute):
    """A route that reads MAX_BODY_BYTES at most; what FastAPI's own `max_body_size` answers is no problem body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(Request(request.scope, _again(await _body(request), request)))

        return bounded


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ProblemError(problems.BODY_TOO_LARGE, close=True)
    return bytes(body)


def _again(body: bytes, request: Request) -> Callable[[], Coroutine[Any, Any, Message]]:
    """Return a `receive` that gives the body once more."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await request.receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
