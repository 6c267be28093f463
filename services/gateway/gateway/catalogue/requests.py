"""What the catalogue's routes share: ids in addresses, pages, If-Match, entity tags, errors."""

from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response

from contracts import problems
from contracts.addresses import CatalogueAddresses
from contracts.catalogue import LARGEST_ID, NAME_CHARACTERS
from contracts.problems import ProblemKind
from gateway.availability import Availability
from gateway.catalogue.rows import (
    ActorExistsError,
    ActorNotFoundError,
    CatalogueError,
    ChangedError,
    Expected,
    Page,
    RevisedRow,
    ScriptNotFoundError,
    TokenNotFoundError,
    TooManyScriptsError,
    entity_tag,
    expected_revisions,
    row_id,
)
from gateway.catalogue.store import ActorStore, ScriptStore, TokenStore
from gateway.web.parts import given
from gateway.web.problems import problem_response
from gateway.web.small_bodies import SmallBodyRoute

ROWS_PER_PAGE = 20
MAX_ROWS_PER_PAGE = 100

Row = TypeVar("Row")

_PROBLEMS: dict[type[CatalogueError], ProblemKind] = {
    TokenNotFoundError: problems.TOKEN_NOT_FOUND,
    ScriptNotFoundError: problems.SCRIPT_NOT_FOUND,
    ActorNotFoundError: problems.ACTOR_NOT_FOUND,
    ActorExistsError: problems.ACTOR_EXISTS,
    TooManyScriptsError: problems.TOO_MANY_SCRIPTS,
    ChangedError: problems.PRECONDITION_FAILED,
}


@dataclass(frozen=True)
class CatalogueParts:
    """What the catalogue's routes work with."""

    tokens: TokenStore
    scripts: ScriptStore
    actors: ActorStore
    availability: Availability
    addresses: CatalogueAddresses


Parts = Annotated[CatalogueParts, given(CatalogueParts)]


def handle_errors(app: FastAPI) -> None:
    """Make every error of the catalogue a problem body."""
    # Starlette types handlers by Exception; each is called with the class it is registered for.
    app.add_exception_handler(CatalogueError, _on_catalogue)  # type: ignore[arg-type] # as above


async def _on_catalogue(request: Request, error: CatalogueError) -> Response:
    more = {"ETag": entity_tag(error.revision)} if isinstance(error, ChangedError) else None
    return problem_response(request, _PROBLEMS[type(error)], more=more)


def _id_in_address(name: str, unknown: type[CatalogueError]) -> Any:
    """Return a dependency that reads a row's id from an address; raises `unknown` when no row can have such an id."""

    async def read(given: Annotated[str, Path(alias=name, json_schema_extra={"type": "integer"})]) -> int:
        found = row_id(given)
        if found is None:
            raise unknown
        return found

    return Depends(read)


async def _page(
    skip: Annotated[int, Query(ge=0, le=LARGEST_ID, description="How many to pass over")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS_PER_PAGE, description="How many to list at most")] = ROWS_PER_PAGE,
) -> Page:
    return Page(skip, limit)


async def _expected(
    request: Request,
    if_match: Annotated[  # noqa: ARG001 - for the document: it may come in several lines (RFC 9110, section 5.3)
        str | None,
        Header(description="The `ETag` that the row was read with; if it was changed since then, nothing is done"),
    ] = None,
) -> Expected:
    return expected_revisions(request.headers.getlist("if-match"))


TokenNumber = Annotated[int, _id_in_address("token_id", TokenNotFoundError)]
ScriptNumber = Annotated[int, _id_in_address("script_id", ScriptNotFoundError)]
ActorNumber = Annotated[int, _id_in_address("actor_id", ActorNotFoundError)]
ListPage = Annotated[Page, Depends(_page)]
ExpectedRevisions = Annotated[Expected, Depends(_expected)]
NAME_PATTERN = r"^[^\x00-\x1f\x7f]*$"
NameText = Annotated[str, Query(max_length=NAME_CHARACTERS, pattern=NAME_PATTERN)]


def tagged(response: Response, found: RevisedRow[Row]) -> Row:
    """Return the row, and put its revision into the answer's ETag."""
    response.headers["ETag"] = found.etag
    return found.row


def known(found: RevisedRow[Row] | None, unknown: type[CatalogueError]) -> RevisedRow[Row]:
    """Return the row; raises `unknown` when there is none."""
    if found is None:
        raise unknown
    return found


def catalogue_router(tag: str) -> APIRouter:
    """Return a router whose calls are refused while MongoDB is away, and when their bodies are large."""
    return APIRouter(tags=[tag], route_class=SmallBodyRoute, dependencies=[Depends(_mongodb_is_up)])


async def _mongodb_is_up(parts: Parts) -> None:
    await parts.availability.require("MongoDB")
