"""Lets a request in when its caller may do what it asks for; before any of its body is read."""

from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.cors import ANY_ORIGIN
from chassis.errors import BackEndError
from chassis.identity.caller import ANYBODY, Caller, InvalidCredentialError
from chassis.identity.challenges import challenge
from chassis.identity.identity import Identity
from chassis.methods import SAFE_METHODS
from contracts import problems
from contracts.problems import ProblemKind
from contracts.rights import Right
from gateway.accounts.access import ACCESS, AccessTable, Need
from gateway.accounts.sessions import CLEARED_COOKIE, Sessions
from gateway.web.callers import STATE
from gateway.web.origins import may_change
from gateway.web.problems import problem_response, unavailable_response
from gateway.web.quotas import ClientQuotas
from gateway.webhook.routes import PATHS, SIGNATURE_PATH

_FORWARDED = {b"x-forwarded-for", b"forwarded"}
_NOT_COUNTED = frozenset({"/health", "/health/live", "/health/ready", "/metrics", SIGNATURE_PATH, *PATHS})
"""The addresses whose calls are not limited: those of probes, and of the analysis server.

They are whole: `/tokens/webhook/upload-audio` uploads for a token that is called `webhook`.
"""


class Guard:
    """Puts the caller where handlers find it. Without AUTH=required, everybody may do everything."""

    def __init__(
        self, app: ASGIApp, identity: Identity, sessions: Sessions, quotas: ClientQuotas, origins: Sequence[str]
    ) -> None:
        self._app = app
        # CORS_ORIGINS=* lets any page call, but without credentials: so a call by cookie needs an origin that is named.
        self._origins = frozenset(origins) - {ANY_ORIGIN}
        self._identity = identity
        self._sessions = sessions
        self._quotas = quotas
        self._access = AccessTable(ACCESS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        need = self._access.need(scope["method"], scope["path"])
        scope[STATE] = self._identity.anonymous
        if not self._identity.is_required:
            scope[STATE] = ANYBODY
            is_hidden = need == Need.OPERATOR_FROM_OUTSIDE and is_from_outside(scope)
            answer = problem_response(Request(scope), problems.NOT_FOUND) if is_hidden else self._app
        elif need is None or need == Need.NOTHING:
            # There is nothing at this address, or something for everybody.
            answer = self._app
        else:
            answer = await self._let_in(need, scope)
        if scope["path"] in _NOT_COUNTED:
            await answer(scope, receive, send)
        else:
            await self._quotas.serve(answer, scope, receive, send)

    async def _let_in(self, need: Right | Need, scope: Scope) -> ASGIApp:
        """Return who answers, and put the caller into the scope; one who is not believed counts as anonymous."""
        request = Request(scope)
        try:
            caller = await self._identity.caller(scope["headers"])
        except InvalidCredentialError as error:
            return _refused(request, problems.TOKEN_EXPIRED if error.expired else problems.TOKEN_INVALID)
        except BackEndError as error:
            return unavailable_response(request, error)
        scope[STATE] = caller
        refusal = self._forged(caller, request) or _refusal(need, caller, self._identity.anonymous, scope)
        if refusal is not None:
            return _refused(request, refusal)
        cookie = await self._sessions.renewed(caller) if caller.by_cookie else None
        return self._app if cookie is None else _with_cookie(self._app, cookie)

    def _forged(self, caller: Caller, request: Request) -> ProblemKind | None:
        """Return what a call is told that a browser may have made for another site's page; None for any other."""
        if not caller.by_cookie or request.method in SAFE_METHODS:
            return None
        is_named = "origin" in request.headers and may_change(request.headers, self._origins)
        return None if is_named else problems.ORIGIN_NOT_ALLOWED


def is_from_outside(scope: Scope) -> bool:
    """Tell whether the request came through a proxy, as all that is from outside does."""
    return any(name in _FORWARDED for name, _ in scope["headers"])


def may_see_details(request: Request) -> bool:
    """Tell whether the caller is told what the service can reach: operators, and the inner network."""
    caller: Caller = request.scope[STATE]
    return caller.may(Right.OPERATE) or not is_from_outside(request.scope)


def _refusal(need: Right | Need, caller: Caller, anonymous: Caller, scope: Scope) -> ProblemKind | None:
    if need == Need.OPERATOR_FROM_OUTSIDE:
        need = Right.OPERATE if is_from_outside(scope) else Need.ANYONE
    if need == Need.ANYONE or (need == Need.KNOWN and caller.is_known):
        return None
    # What anybody may do, a key may too whose scopes do not name it.
    if isinstance(need, Right) and (caller.may(need) or anonymous.may(need)):
        return None
    return problems.NOT_ALLOWED if caller.is_known else problems.LOGIN_REQUIRED


def _refused(request: Request, kind: ProblemKind) -> ASGIApp:
    """Return the answer, which says how to come in, and takes away a cookie that does not count."""
    headers = challenge(kind)
    if kind in {problems.TOKEN_INVALID, problems.TOKEN_EXPIRED} and "authorization" not in request.headers:
        headers["Set-Cookie"] = CLEARED_COOKIE
    return problem_response(request, kind, close=request.method not in SAFE_METHODS, more=headers)


def _with_cookie(app: ASGIApp, cookie: str) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("Set-Cookie", cookie)
            await send(message)

        await app(scope, receive, send_with_cookie)

    return answer
