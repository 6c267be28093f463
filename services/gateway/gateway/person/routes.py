"""The routes of a person's own data."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from chassis.identity.caller import Caller
from chassis.identity.identity import Identity
from chassis.quotas.quota import Used
from chassis.quotas.replicas import Replicas
from contracts import api, problems
from contracts.api import ErasureAccepted, Limit, Me, ScoreList
from contracts.failures import preferred_language
from gateway.accounts.sessions import CLEARED_COOKIE
from gateway.availability import Availability
from gateway.person.documents import OwnedJobs
from gateway.person.erasing import Erasing
from gateway.person.export import exported
from gateway.person.scores import page_of_scores
from gateway.storage import Bucket
from gateway.uploads.routes import TOKEN_ID_CHARACTERS
from gateway.web.callers import CallerIs
from gateway.web.headers import NOT_STORED
from gateway.web.pace import sent_at_a_pace
from gateway.web.parameters import AcceptLanguage
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.quotas import JOBS_WAITING, counted_client
from gateway.web.slots import Slots

log = structlog.get_logger()

_EXPORT = {
    **NOT_STORED,
    "Content-Type": "application/zip",
    "Content-Disposition": 'attachment; filename="sori-export.zip"',
}
TOKENS_PER_PAGE = 100


@dataclass(frozen=True)
class PersonParts:
    """What these routes work with."""

    identity: Identity
    owned: OwnedJobs
    erasing: Erasing
    bucket: Bucket
    availability: Availability
    readers: Slots
    replicas: Replicas


Parts = Annotated[PersonParts, given(PersonParts)]
router = APIRouter(prefix="/me", tags=["accounts"])


@router.get("", summary="Read who one is", response_model_exclude_none=True)
async def me(parts: Parts, caller: CallerIs, request: Request, response: Response) -> Me:
    """Return who the caller is, what they may do, and how much of it; also for somebody who has not logged in."""
    response.headers.update(NOT_STORED)
    client = counted_client(request)
    all_used = [] if client is None else await parts.replicas.usage(client)
    return Me(
        login_required=parts.identity.is_required,
        kind=caller.kind.value,
        owner=caller.owner,
        roles=sorted(caller.roles),
        rights=sorted(caller.rights),
        limits=[_limit(used) for used in all_used if used.quota is not JOBS_WAITING or caller.owner is not None],
    )


@router.get(
    "/scores",
    response_model_exclude_none=True,
    summary="Read one's best and last scores",
    responses=api.problem_answers(problems.LOGIN_OFF, problems.REQUEST_INVALID, problems.UNAVAILABLE),
)
async def my_scores(
    parts: Parts,
    caller: CallerIs,
    response: Response,
    after: Annotated[
        str, Query(max_length=TOKEN_ID_CHARACTERS, description="Where a page goes on, as `next` has it")
    ] = "",
    limit: Annotated[
        int, Query(ge=1, le=TOKENS_PER_PAGE, description="How many tokens a page has at most")
    ] = TOKENS_PER_PAGE,
) -> ScoreList:
    """Return the best and the last score of each token and script that the caller has spoken, by token id."""
    tokens, last = await page_of_scores(parts.owned, _owner(caller), after, limit)
    response.headers.update(NOT_STORED)
    following = None if last is None else f"/me/scores?{urlencode({'after': last, 'limit': limit})}"
    return ScoreList(tokens=tokens, next=following)


@router.get(
    "/export",
    response_class=Response,
    summary="Take all of one's data along",
    responses={
        200: {
            "description": "`jobs.json`, `results/`, `audio/`; `missing.json` names what was removed meanwhile",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **api.problem_answers(problems.LOGIN_OFF, problems.TOO_MANY_AT_ONCE, problems.BUSY, problems.UNAVAILABLE),
    },
)
async def my_export(parts: Parts, caller: CallerIs, accept_language: AcceptLanguage = None) -> Response:
    """Return a ZIP of all that is kept of the caller's jobs. It is made while it is read, so its size is not known."""
    owner = _owner(caller)
    await parts.availability.require("S3", "MongoDB")
    with ExitStack() as held:
        held.enter_context(parts.readers.taken(owner))
        chunks = exported(parts.owned, parts.bucket, owner, preferred_language(accept_language))
        first = await anext(chunks)  # what fails at once gets an answer of its own
        return _Export(first, chunks, held.pop_all())


@router.head("/export", include_in_schema=False)
async def my_export_head(caller: CallerIs) -> Response:
    """Return the headers, and make nothing."""
    _owner(caller)
    return Response(headers=_EXPORT)


@router.delete(
    "",
    status_code=202,
    summary="Delete all of one's data",
    responses=api.problem_answers(problems.LOGIN_OFF, problems.UNAVAILABLE),
)
async def delete_me(parts: Parts, caller: CallerIs, response: Response) -> ErasureAccepted:
    """Purge all of the caller's jobs, uploads under way included, with their links, and end all of their sessions.

    It is done whatever fails meanwhile. An API key stays: it is an operator's to revoke.
    """
    owner = _owner(caller)
    asked_at = await parts.erasing.ask(owner)
    parts.identity.forget()
    log.info("erasure accepted", owner=owner)
    response.headers.update(NOT_STORED)
    if caller.by_cookie:
        response.headers["Set-Cookie"] = CLEARED_COOKIE
    return ErasureAccepted(asked_at=asked_at)


class _Export(StreamingResponse):
    """Sends the archive; what it holds is released however that ends, even if it never begins."""

    def __init__(self, first: bytes, chunks: AsyncGenerator[bytes, None], held: ExitStack) -> None:
        super().__init__(_with_first(first, chunks), 200, _EXPORT)
        self._chunks = chunks
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with aclosing(self._chunks):
                await sent_at_a_pace(super().__call__, scope, receive, send)


async def _with_first(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in others:
        yield chunk


def _owner(caller: Caller) -> str:
    """Return whose data is asked for. Without a login, nothing is anybody's."""
    if caller.owner is None:
        raise ProblemError(problems.LOGIN_OFF)
    return caller.owner


def _limit(used: Used) -> Limit:
    resets_at = None if used.seconds is None else datetime.now(UTC) + timedelta(seconds=used.seconds)
    return Limit(name=used.quota.name, used=used.used, of=used.of, resets_at=resets_at)
