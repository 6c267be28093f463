"""Lets a request in when its caller may do what it asks for; before any of its body is read."""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.errors import BackEndError
from chassis.identity.caller import ANYBODY, Caller, InvalidCredentialError
from chassis.identity.identity import Identity
from contracts import problems
from contracts.problems import ProblemKind
from contracts.rights import Right
from gateway.accounts.access import ACCESS, AccessTable, Need
from gateway.accounts.sessions import CLEARED_COOKIE, Sessions
from gateway.web.callers import STATE
from gateway.web.problems import problem_response, unavailable_response

_SAFE = {"GET", "HEAD", "OPTIONS"}
_FORWARDED = {b"x-forwarded-for", b"forwarded"}


class Guard:
    """Puts the caller where handlers find it. Without AUTH=required, everybody may do everything."""

    def __init__(self, app: ASGIApp, identity: Identity, sessions: Sessions) -> None:
        self._app = app
        self._identity = identity
        self._sessions = sessions
        self._access = AccessTable(ACCESS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        need = self._access.need(scope["method"], scope["path"])
        if not self._identity.is_required:
            if need == Need.OPERATOR_FROM_OUTSIDE and is_from_outside(scope):
                await problem_response(Request(scope), problems.NOT_FOUND)(scope, receive, send)
                return
            scope[STATE] = ANYBODY
            await self._app(scope, receive, send)
        elif need is None or need == Need.NOTHING:
            # There is nothing at this address, or something for everybody.
            scope[STATE] = self._identity.anonymous
            await self._app(scope, receive, send)
        else:
            await self._let_in(need, scope, receive, send)

    async def _let_in(self, need: Right | Need, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            caller = await self._identity.caller(scope["headers"])
        except InvalidCredentialError as error:
            kind = problems.TOKEN_EXPIRED if error.expired else problems.TOKEN_INVALID
            await _refused(request, kind)(scope, receive, send)
            return
        except BackEndError as error:
            await unavailable_response(request, error)(scope, receive, send)
            return
        refusal = _refusal(need, caller, self._identity.anonymous, scope)
        if refusal is not None:
            await _refused(request, refusal)(scope, receive, send)
            return
        scope[STATE] = caller
        cookie = await self._sessions.renewed(caller) if caller.by_cookie else None
        await self._app(scope, receive, send if cookie is None else _with_cookie(send, cookie))


def is_from_outside(scope: Scope) -> bool:
    """Tell whether the request came through a proxy, as all that is from outside does."""
    return any(name in _FORWARDED for name, _ in scope["headers"])


def may_see_details(request: Request) -> bool:
    """Tell whether the caller is told what the service can reach: operators, and the inner network."""
    caller: Caller = request.scope[STATE]
    return caller.may(Right.OPERATE) or not is_from_outside(request.scope)


def _refusal(need: Right | Need, caller: Caller, anonymous: Caller, scope: Scope) -> ProblemKind | None:
    if caller.by_cookie and scope["method"] not in _SAFE and not _has_origin(scope):
        return problems.ORIGIN_NOT_ALLOWED
    if need == Need.OPERATOR_FROM_OUTSIDE:
        need = Right.OPERATE if is_from_outside(scope) else Need.ANYONE
    if need == Need.ANYONE or (need == Need.KNOWN and caller.is_known):
        return None
    # What anybody may do, a key may too whose scopes do not name it.
    if isinstance(need, Right) and (caller.may(need) or anonymous.may(need)):
        return None
    return problems.NOT_ALLOWED if caller.is_known else problems.LOGIN_REQUIRED


def _has_origin(scope: Scope) -> bool:
    # Which ones are allowed, gateway.web.origins has checked.
    return any(name == b"origin" for name, _ in scope["headers"])


def _refused(request: Request, kind: ProblemKind) -> ASGIApp:
    """Return the answer. A 401 says how to come in (RFC 6750, section 3), and takes away a cookie that is over."""
    headers = {}
    if kind.status == problems.LOGIN_REQUIRED.status:
        has_token = kind is not problems.LOGIN_REQUIRED
        headers["WWW-Authenticate"] = 'Bearer realm="sori"' + (', error="invalid_token"' if has_token else "")
        if has_token and "authorization" not in request.headers:
            headers["Set-Cookie"] = CLEARED_COOKIE
    elif kind is problems.NOT_ALLOWED:
        headers["WWW-Authenticate"] = 'Bearer realm="sori", error="insufficient_scope"'
    return problem_response(request, kind, close=request.method not in _SAFE, more=headers)


def _with_cookie(send: Send, cookie: str) -> Send:
    async def send_with_cookie(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append("Set-Cookie", cookie)
        await send(message)

    return send_with_cookie
