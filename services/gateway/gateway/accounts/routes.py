"""The routes that log people in and out, and give tickets for streams."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from chassis.identity.caller import Caller, InvalidCredentialError, Kind
from chassis.identity.credentials import MOST_CHARACTERS
from chassis.identity.identity import Identity
from chassis.identity.own_tokens import TICKET, OwnTokens
from contracts import api, problems
from contracts.api import LoggedIn, LoggedInUser, SessionOpened, TicketOpened
from gateway.accounts.sessions import CLEARED_COOKIE, LIFETIME, Sessions, cookie
from gateway.jobs.visible import VisibleJobs
from gateway.web.callers import CallerIs
from gateway.web.headers import NOT_STORED
from gateway.web.parameters import canonical
from gateway.web.parts import given
from gateway.web.problems import ProblemError
from gateway.web.small_bodies import REFUSALS, SmallBodyRoute

log = structlog.get_logger()

TICKET_SECONDS = 60


@dataclass(frozen=True)
class AccountParts:
    """What these routes work with."""

    identity: Identity
    sessions: Sessions
    visible: VisibleJobs


class TicketAsked(BaseModel):
    """The stream that is to be opened."""

    job_id: str = Field(max_length=36, json_schema_extra={"format": "uuid"})


class GoogleLogin(BaseModel):
    """What Google's button hands to a page."""

    id_token: str = Field(min_length=1, max_length=MOST_CHARACTERS)


Parts = Annotated[AccountParts, given(AccountParts)]
router = APIRouter(prefix="/auth", tags=["accounts"], route_class=SmallBodyRoute)


@router.post(
    "/session",
    status_code=201,
    summary="Turn a bearer token into a session",
    responses=api.problem_answers(
        problems.LOGIN_REQUIRED,
        problems.NOT_ALLOWED,
        problems.SESSION_NOT_FOUND,
        problems.LOGIN_OFF,
        problems.UNAVAILABLE,
    ),
)
async def open_session(parts: Parts, caller: CallerIs, response: Response) -> SessionOpened:
    """Begin a session for the person that the bearer token names; browsers send its cookie from now on.

    The token of a session, such as `/auth/google-login` gives, makes that session the browser's.
    """
    _require_login(parts)
    if caller.kind != Kind.PERSON or caller.owner is None:
        raise ProblemError(problems.NOT_ALLOWED)
    session_id = caller.session_id
    if session_id is None:
        session, token = await parts.sessions.begin(caller.owner, caller.roles)
        log.info("session begun", owner=session.owner)
    else:
        # A session that began others would outlast its own end, and never ask the issuer again.
        found = await parts.sessions.go_on(session_id)
        if found is None:
            raise ProblemError(problems.SESSION_NOT_FOUND)
        session, token = found
    response.headers.update({**NOT_STORED, "Set-Cookie": cookie(token)})
    return SessionOpened(owner=session.owner, roles=list(session.roles), expires_at=session.expires_at)


@router.delete(
    "/session",
    status_code=204,
    summary="Log out",
    responses=api.problem_answers(
        problems.LOGIN_REQUIRED, problems.SESSION_NOT_FOUND, problems.LOGIN_OFF, problems.UNAVAILABLE
    ),
)
async def close_session(parts: Parts, caller: CallerIs) -> Response:
    """End the session. Streams that it opened end within a minute."""
    _require_login(parts)
    if caller.session_id is None:
        raise ProblemError(problems.SESSION_NOT_FOUND)
    await parts.sessions.end(caller.session_id)
    parts.identity.forget()
    log.info("session ended", owner=caller.owner)
    return Response(status_code=204, headers={**NOT_STORED, "Set-Cookie": CLEARED_COOKIE})


@router.post(
    "/tickets",
    status_code=201,
    summary="Get a ticket for one stream",
    responses=api.problem_answers(
        problems.LOGIN_REQUIRED, problems.JOB_NOT_FOUND, problems.LOGIN_OFF, problems.UNAVAILABLE, *REFUSALS
    ),
)
async def give_ticket(parts: Parts, caller: CallerIs, asked: TicketAsked, response: Response) -> TicketOpened:
    """Return what opens one stream of the job within a minute, for pages whose EventSource sends no cookie."""
    tokens = _require_login(parts)
    job = await parts.visible.find(caller, canonical(asked.job_id), "stream")
    ticket = tokens.sign(
        TICKET,
        datetime.now(UTC) + timedelta(seconds=TICKET_SECONDS),
        jti=secrets.token_urlsafe(16),
        job_id=job.job_id,
        **_bound_to(caller),
    )
    response.headers.update(NOT_STORED)
    address = f"{api.PROGRESS_PATH.format(job_id=job.job_id)}?{urlencode({'ticket': ticket})}"
    return TicketOpened(ticket=ticket, expires_in=TICKET_SECONDS, progress_url=address)


@router.post(
    "/google-login",
    response_model_exclude_none=True,
    summary="Log in with an id token",
    responses=api.problem_answers(problems.TOKEN_INVALID, problems.LOGIN_OFF, problems.UNAVAILABLE, *REFUSALS),
)
async def google_login(parts: Parts, asked: GoogleLogin, response: Response) -> LoggedIn:
    """Return an access token for the person that the id token names; it is a session's, and ends with it."""
    _require_login(parts)
    try:
        person = await parts.identity.issuers.person(asked.id_token)
    except InvalidCredentialError as error:
        raise ProblemError(problems.TOKEN_EXPIRED if error.expired else problems.TOKEN_INVALID) from None
    session, token = await parts.sessions.begin(person.owner, person.roles)
    response.headers.update(NOT_STORED)
    log.info("session begun", owner=session.owner)
    said: dict[str, Any] = {name: person.claims.get(name) for name in ("email", "name", "picture")}
    shown = {name: value for name, value in said.items() if isinstance(value, str)}
    return LoggedIn(
        access_token=token,
        expires_in=round(LIFETIME.total_seconds()),
        user=LoggedInUser(id=session.owner, **shown),
    )


def _require_login(parts: AccountParts) -> OwnTokens:
    tokens = parts.identity.own_tokens
    if tokens is None:
        raise ProblemError(problems.LOGIN_OFF)
    return tokens


def _bound_to(caller: Caller) -> dict[str, Any]:
    """Return the claims that end the ticket's stream when the credential that asked for it ends."""
    until = None if caller.expires_at is None else int(caller.expires_at.timestamp())
    return {name: value for name, value in (("credential", caller.credential), ("until", until)) if value is not None}
