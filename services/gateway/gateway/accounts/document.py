"""What the OpenAPI document says of who may call what (OpenAPI 3.1, Security Requirement Object)."""

from typing import Any

from contracts import api, problems
from contracts.accounts import SESSION_COOKIE
from contracts.rights import Right
from gateway.accounts.access import ACCESS, Need

_SCHEMES: dict[str, Any] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of an issuer, an access token of `/auth/google-login`, or an API key (`sori_…`)",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The cookie of `POST /auth/session`",
    },
}
_ANSWERS = api.problem_answers(
    problems.LOGIN_REQUIRED,
    problems.TOKEN_INVALID,
    problems.TOKEN_EXPIRED,
    problems.NOT_ALLOWED,
    problems.ORIGIN_NOT_ALLOWED,
    problems.TOO_MANY_REQUESTS,
)


def add_security(document: dict[str, Any]) -> None:
    """Add to each operation what it needs where AUTH=required, and how it is refused."""
    document["components"]["securitySchemes"] = _SCHEMES
    needs = {route.replace(":path}", "}"): need for route, need in ACCESS.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe(operation, needs[f"{method.upper()} {path}"])


def _describe(operation: dict[str, Any], need: Right | Need) -> None:
    if need == Need.NOTHING:
        operation["security"] = []
        return
    # Without AUTH=required, and for a public catalogue, no credential is needed.
    operation["security"] = [{}, *({scheme: []} for scheme in _SCHEMES)]
    operation["x-needs"] = need.value
    for status, answer in _ANSWERS.items():
        operation["responses"].setdefault(str(status), answer)
