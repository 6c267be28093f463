"""The routes of the catalogue's tokens."""

from typing import Annotated

from fastapi import Query, Response
from fastapi.exceptions import RequestValidationError

from contracts import api, problems
from contracts.catalogue import Token, TokenBody, TokenDetails, Views
from gateway.catalogue.requests import (
    CatalogueParts,
    ExpectedRevisions,
    ListPage,
    NameText,
    Parts,
    TokenNumber,
    catalogue_router,
    known,
    tagged,
)
from gateway.catalogue.rows import Order, TokenFilter, TokenNotFoundError
from gateway.web.small_bodies import REFUSALS

_ADDRESS = "/tokens/{token_id}"
_WRITING = (
    *REFUSALS,
    problems.REQUEST_INVALID,
    problems.UNAVAILABLE,
)

router = catalogue_router("tokens")


@router.post(
    "/tokens",
    status_code=201,
    response_model_exclude_none=True,
    summary="Add a token",
    responses=api.problem_answers(*_WRITING),
)
async def add_token(parts: Parts, response: Response, body: TokenBody) -> Token:
    """Add a token to the catalogue, which gives it an id."""
    _check_addresses(parts, body)
    added = await parts.tokens.add(body)
    response.headers["Location"] = _ADDRESS.format(token_id=added.row.id)
    return tagged(response, added)


@router.get(
    "/tokens",
    response_model_exclude_none=True,
    summary="List tokens",
    responses=api.problem_answers(problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def list_tokens(
    *,
    parts: Parts,
    page: ListPage,
    category: Annotated[NameText | None, Query(description="Only tokens of this category")] = None,
    actor: Annotated[NameText | None, Query(description="Only tokens of who has this name or alias")] = None,
    search: Annotated[
        NameText | None, Query(description="Only tokens with this in their name or their actors', in any case")
    ] = None,
    sort: Annotated[
        Order,
        Query(
            description="By `id`, the `latest` first, or the `popular` first; ids decide between equals. Views that"
            " are counted between two pages of the `popular` may show a token twice, or in neither"
        ),
    ] = Order.ID,
) -> list[Token]:
    """Return a part of the list, without scripts; a filter that is empty asks for nothing."""
    return await parts.tokens.page(TokenFilter(category, actor, search, sort), page)


@router.get(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Read a token with its scripts",
    responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.UNAVAILABLE),
)
async def read_token(parts: Parts, response: Response, token_id: TokenNumber) -> TokenDetails:
    """Return the token with its scripts by start time. Its `ETag` changes with either, and not with views."""
    token = tagged(response, known(await parts.tokens.find(token_id), TokenNotFoundError))
    # After the token: of scripts that change meanwhile the tag is too old, which If-Match notices.
    return TokenDetails.model_construct(**dict(token), scripts=await parts.tokens.scripts_of(token_id))


@router.put(
    _ADDRESS,
    response_model_exclude_none=True,
    summary="Replace a token",
    responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.PRECONDITION_FAILED, *_WRITING),
)
async def replace_token(
    parts: Parts, response: Response, token_id: TokenNumber, body: TokenBody, expected: ExpectedRevisions
) -> Token:
    """Put this in place of all that the token was, but its id, its views and its scripts.

    Its `reference_audio_url` stays as well when the body has no such field; null removes it.
    """
    _check_addresses(parts, body)
    return tagged(response, await parts.tokens.replace(token_id, body, expected))


@router.delete(
    _ADDRESS,
    status_code=204,
    summary="Remove a token and its scripts",
    responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.PRECONDITION_FAILED, problems.UNAVAILABLE),
)
async def remove_token(parts: Parts, token_id: TokenNumber, expected: ExpectedRevisions) -> None:
    """Remove the token and its scripts; jobs of its recordings stay."""
    await parts.tokens.remove(token_id, expected)


@router.post(
    _ADDRESS + "/view",
    summary="Count a view of a token",
    responses=api.problem_answers(problems.TOKEN_NOT_FOUND, problems.UNAVAILABLE),
)
async def view_token(parts: Parts, token_id: TokenNumber) -> Views:
    """Count one more view. Reading counts none."""
    return await parts.tokens.view(token_id)


def _check_addresses(parts: CatalogueParts, body: TokenBody) -> None:
    """Raise RequestValidationError for addresses that the catalogue may not have."""
    wrong = body.wrong_addresses(parts.addresses)
    if wrong:
        raise RequestValidationError([{"type": "address_not_allowed", "loc": ("body", name)} for name in wrong])
