"""The routes of the catalogue's scripts."""

from fastapi import Response

from contracts import api, problems
from contracts.catalogue import Script, ScriptBody
from gateway.catalogue.requests import (
    ExpectedRevisions,
    ListPage,
    Parts,
    ScriptNumber,
    TokenNumber,
    catalogue_router,
    known,
    tagged,
)
from gateway.catalogue.rows import ScriptNotFoundError, TokenNotFoundError
from gateway.web.small_bodies import REFUSALS

_ADDRESS = "/scripts/{script_id}"
_WRITING = (
    problems.TOKEN_NOT_FOUND,
    problems.TOO_MANY_SCRIPTS,
    *REFUSALS,
    problems.REQUEST_INVALID,
    problems.UNAVAILABLE,
)

router = catalogue_router("scripts")


@router.post(
    "/scripts",
    status_code=201,
    response_model_exclude_none=True,
    summary="Add a script to a token",
    responses=api.problem_answers(*_WRITING),
)
async def add_script(parts: Parts, response: Response, body: ScriptBody) -> Script:
    """Add one sentence of a token."""
    added = await parts.scripts.add(body)
    response.headers["Location"] = _ADDRESS.format(script_id=added.row.id)
    return tagged(response, added)


@router.get(
    "/scripts",
    response_model_exclude_none=True,
    summary="List scripts",
    responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def list_scripts(parts: Parts, page: ListPage) -> list[Script]:
    """Return a part of the list of all scripts, by id."""
    return await parts.scripts.page(page)


@router.get(
    "/scripts/token/{token_id}",
    response_model_exclude_none=True,
    summary="List a token's scripts",
    responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.UNAVAILABLE),
)
async def scripts_of_token(parts: Parts, token_id: TokenNumber) -> list[Script]:
    """Return all of the token's scripts, by start time."""
    known(await parts.tokens.find(token_id), TokenNotFoundError)
    return await parts.tokens.scripts_of(token_id)


@router.get(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Read a script",
    responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.UNAVAILABLE),
)
async def read_script(parts: Parts, response: Response, script_id: ScriptNumber) -> Script:
    """Return the script."""
    return tagged(response, known(await parts.scripts.find(script_id), ScriptNotFoundError))


@router.put(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Replace a script",
    responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.PRECONDITION_FAILED, *_WRITING),
)
async def replace_script(
    parts: Parts, response: Response, script_id: ScriptNumber, body: ScriptBody, expected: ExpectedRevisions
) -> Script:
    """Put this in place of all that the script was, but its id; it may become another token's."""
    return tagged(response, await parts.scripts.replace(script_id, body, expected))


@router.delete(
    _ADDRESS,
    status_code=204,
    summary="Remove a script",
    responses=api.problem_answers(problems.SCRIPT_NOT_FOUND, problems.PRECONDITION_FAILED, problems.UNAVAILABLE),
)
async def remove_script(parts: Parts, script_id: ScriptNumber, expected: ExpectedRevisions) -> None:
    """Remove the script."""
    await parts.scripts.remove(script_id, expected)
