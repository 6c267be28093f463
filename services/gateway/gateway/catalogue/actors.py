"""The routes of the catalogue's actors."""

from typing import Annotated

from fastapi import Path, Response

from contracts import api, problems
from contracts.catalogue import NAME_CHARACTERS, Actor, ActorBody, Token
from gateway.catalogue.requests import (
    NAME_PATTERN,
    ActorNumber,
    ExpectedRevisions,
    ListPage,
    Parts,
    catalogue_router,
    known,
    tagged,
)
from gateway.catalogue.rows import ActorNotFoundError
from gateway.web.small_bodies import REFUSALS

_ADDRESS = "/actors/{actor_id}"
_WRITING = (
    problems.ACTOR_EXISTS,
    *REFUSALS,
    problems.REQUEST_INVALID,
    problems.UNAVAILABLE,
)

router = catalogue_router("actors")


@router.post(
    "/actors",
    status_code=201,
    response_model_exclude_none=True,
    summary="Add an actor",
    responses=api.problem_answers(*_WRITING),
)
async def add_actor(parts: Parts, response: Response, body: ActorBody) -> Actor:
    """Add an actor; no two have one name, in whatever case, while an alias may be several actors'."""
    added = await parts.actors.add(body)
    response.headers["Location"] = _ADDRESS.format(actor_id=added.row.id)
    return tagged(response, added)


@router.get(
    "/actors",
    response_model_exclude_none=True,
    summary="List actors",
    responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def list_actors(parts: Parts, page: ListPage) -> list[Actor]:
    """Return a part of the list of all actors, by id."""
    return await parts.actors.page(page)


@router.get(
    "/actors/search/{name:path}",
    response_model_exclude_none=True,
    summary="Search actors",
    responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def search_actors(
    parts: Parts,
    name: Annotated[
        str, Path(max_length=NAME_CHARACTERS, pattern=NAME_PATTERN, description="Any part of a name or an alias")
    ],
    page: ListPage,
) -> list[Actor]:
    """Return those who have this in their name or in an alias, in any case, by id."""
    return await parts.actors.search(name, page)


@router.get(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Read an actor",
    responses=api.problem_answers(problems.ACTOR_NOT_FOUND, problems.UNAVAILABLE),
)
async def read_actor(parts: Parts, response: Response, actor_id: ActorNumber) -> Actor:
    """Return the actor."""
    return tagged(response, known(await parts.actors.find(actor_id), ActorNotFoundError))


@router.get(
    _ADDRESS + "/tokens",
    response_model_exclude_none=True,
    summary="List an actor's tokens",
    responses=api.problem_answers(problems.ACTOR_NOT_FOUND, problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def tokens_of_actor(parts: Parts, actor_id: ActorNumber, page: ListPage) -> list[Token]:
    """Return a part of the list of the tokens that name the actor, by name or alias; by id, without scripts."""
    actor = known(await parts.actors.find(actor_id), ActorNotFoundError).row
    return await parts.tokens.of_actor(actor, page)


@router.put(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Replace an actor",
    responses=api.problem_answers(problems.ACTOR_NOT_FOUND, problems.PRECONDITION_FAILED, *_WRITING),
)
async def replace_actor(
    parts: Parts, response: Response, actor_id: ActorNumber, body: ActorBody, expected: ExpectedRevisions
) -> Actor:
    """Put this in place of all that the actor was, but the id.

    Tokens name actors by name: those with the old name are the actor's as long as that is among the aliases.
    """
    return tagged(response, await parts.actors.replace(actor_id, body, expected))


@router.delete(
    _ADDRESS,
    status_code=204,
    summary="Remove an actor",
    responses=api.problem_answers(problems.ACTOR_NOT_FOUND, problems.PRECONDITION_FAILED, problems.UNAVAILABLE),
)
async def remove_actor(parts: Parts, actor_id: ActorNumber, expected: ExpectedRevisions) -> None:
    """Remove the actor; what the tokens say of their actors stays."""
    await parts.actors.remove(actor_id, expected)
