"""The routes of the catalogue's scripts."""

from fastapi import APIRouter, Response

from contracts import api, problems
from contracts.catalogue import Script, ScriptBody
from gateway.availability import Availability
from gateway.catalogue import ScriptNotFoundError, TokenNotFoundError
from gateway.catalogue_store import Scripts, Tokens
from gateway.routes.catalogue import (
    ExpectedRevisions,
    ListPage,
    ScriptNumber,
    TokenNumber,
    catalogue_router,
    known,
    tagged,
)

_ADDRESS = "/scripts/{script_id}"
_WRITING = (
    problems.TOKEN_NOT_FOUND,
    problems.TOO_MANY_SCRIPTS,
    problems.BODY_TOO_LARGE,
    problems.REQUEST_INVALID,
    problems.UNAVAILABLE,
)


def script_routes(tokens: Tokens, scripts: Scripts, back_ends: Availability) -> APIRouter:
    """Return the routes of scripts."""
    router = catalogue_router("scripts", back_ends)

    @router.post(
        "/scripts",
        status_code=201,
        response_model_exclude_none=True,
        summary="Add a script to a token",
        responses=api.problem_answers(*_WRITING),
    )
    async def add_script(response: Response, body: ScriptBody) -> Script:
        """Add one sentence of a token."""
        kept = await scripts.add(body)
        response.headers["Location"] = _ADDRESS.format(script_id=kept.row.id)
        return tagged(response, kept)

    @router.get(
        "/scripts",
        response_model_exclude_none=True,
        summary="List scripts",
        responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
    )
    async def list_scripts(page: ListPage) -> list[Script]:
        """Return a part of the list of all scripts, by id."""
        return await scripts.page(page)

    @router.get(
        "/scripts/token/{token_id}",
        response_model_exclude_none=True,
        summary="List a token's scripts",
        responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.UNAVAILABLE),
    )
    async def scripts_of_token(token_id: TokenNumber) -> list[Script]:
        """Return all of the token's scripts, by start time."""
        known(await tokens.find(token_id), TokenNotFoundError)
        return await tokens.scripts_of(token_id)

    @router.get(
        _ADDRESS,
        response_model_exclude_none=True,
        summary="Read a script",
        responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.UNAVAILABLE),
    )
    async def read_script(response: Response, script_id: ScriptNumber) -> Script:
        """Return the script."""
        return tagged(response, known(await scripts.find(script_id), ScriptNotFoundError))

    @router.put(
        _ADDRESS,
        response_model_exclude_none=True,
        summary="Replace a script",
        responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.PRECONDITION_FAILED, *_WRITING),
    )
    async def replace_script(
        response: Response, script_id: ScriptNumber, body: ScriptBody, expected: ExpectedRevisions
    ) -> Script:
        """Put this in place of all that the script was, but its id; it may become another token's."""
        return tagged(response, await scripts.replace(script_id, body, expected))

    @router.delete(
        _ADDRESS,
        status_code=204,
        summary="Remove a script",
        responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.PRECONDITION_FAILED, problems.UNAVAILABLE),
    )
    async def remove_script(script_id: ScriptNumber, expected: ExpectedRevisions) -> None:
        """Remove the script."""
        await scripts.remove(script_id, expected)

    return router
