"""What a caller needs for each route: the one table of who may do what."""

import re
from collections.abc import Iterable
from enum import StrEnum

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from contracts import api
from contracts.rights import Right


class Need(StrEnum):
    """What a route needs that is no right."""

    NOTHING = "nothing"
    """Everybody may call it, or it checks a proof of its own (a signature, a secret address). No credential is read."""
    ANYONE = "anyone"
    """Everybody may call it; who it is makes a difference."""
    KNOWN = "known"
    """A person or a machine that has said who it is."""
    OPERATOR_FROM_OUTSIDE = "operator_from_outside"
    """The right to operate, unless the call comes from the inner network, past the edge."""


_JOB = api.JOBS_PATH + "/{job_id}"
_OWN, _READ, _WRITE = Right.JOBS_OWN, Right.CATALOGUE_READ, Right.CATALOGUE_WRITE

ACCESS: dict[str, Right | Need] = {
    # In the order in which the router matches.
    "POST /tokens/{token_id}/upload-audio": _OWN,
    f"GET {api.RESULT_PATH}": _OWN,
    f"GET {api.PROGRESS_PATH}": _OWN,  # the notifier's
    f"GET {api.JOBS_PATH}": _OWN,
    f"GET {_JOB}": _OWN,
    f"DELETE {_JOB}": _OWN,
    f"GET {_JOB}/audio": _OWN,
    f"POST {_JOB}/retry": _OWN,
    f"POST {_JOB}/links": _OWN,
    f"GET {_JOB}/links": _OWN,
    f"DELETE {_JOB}/links/{{link_id}}": _OWN,
    f"GET {api.SHARED_PATH}": Need.NOTHING,  # the address is a secret
    f"GET {api.SHARED_PATH}/audio": Need.NOTHING,
    "POST /tokens/webhook/analysis-complete": Need.NOTHING,  # signed
    "POST /webhook/analysis-complete": Need.NOTHING,
    "GET /webhook/signature": Need.NOTHING,
    "POST /tokens": _WRITE,
    "GET /tokens": _READ,
    "GET /tokens/{token_id}": _READ,
    "PUT /tokens/{token_id}": _WRITE,
    "DELETE /tokens/{token_id}": _WRITE,
    "POST /tokens/{token_id}/view": _READ,
    "PUT /tokens/{token_id}/reference-audio": _WRITE,
    "GET /tokens/{token_id}/reference-audio": _READ,
    "POST /scripts": _WRITE,
    "GET /scripts": _READ,
    "GET /scripts/token/{token_id}": _READ,
    "GET /scripts/{script_id}": _READ,
    "PUT /scripts/{script_id}": _WRITE,
    "DELETE /scripts/{script_id}": _WRITE,
    "POST /actors": _WRITE,
    "GET /actors": _READ,
    "GET /actors/search/{name:path}": _READ,
    "GET /actors/{actor_id}": _READ,
    "PUT /actors/{actor_id}": _WRITE,
    "DELETE /actors/{actor_id}": _WRITE,
    "GET /actors/{actor_id}/tokens": _READ,
    "POST /auth/session": Need.KNOWN,
    "DELETE /auth/session": Need.KNOWN,
    "POST /auth/tickets": _OWN,
    "POST /auth/google-login": Need.NOTHING,  # the id token in its body
    "GET /me": Need.ANYONE,
    "DELETE /me": _OWN,
    "GET /me/scores": _OWN,
    "GET /me/export": _OWN,
    "GET /health": Need.ANYONE,
    "GET /health/ready": Need.ANYONE,
    "GET /health/live": Need.NOTHING,
    "GET /metrics": Need.OPERATOR_FROM_OUTSIDE,
    "GET /docs": Need.NOTHING,
    "GET /openapi.json": Need.NOTHING,
    "GET /static-offline-docs/{path:path}": Need.NOTHING,
}


class AccessTable:
    """Answers what a request needs, by its method and address."""

    def __init__(self, access: dict[str, Right | Need]) -> None:
        self._by_method: dict[str, list[tuple[re.Pattern[str], Right | Need]]] = {}
        for route, need in access.items():
            method, path = route.split(" ", 1)
            pattern, _, _ = compile_path(path)
            self._by_method.setdefault(method, []).append((pattern, need))

    def need(self, method: str, path: str) -> Right | Need | None:
        """Return what is needed; None where there is nothing. HEAD needs what GET does."""
        asked = "GET" if method == "HEAD" else method
        return next((need for pattern, need in self._by_method.get(asked, ()) if pattern.match(path)), None)


def unlisted(routers: Iterable[APIRouter]) -> list[str]:
    """Return the routes, `GET /path`, that the table lacks."""
    routes = (route for router in routers for route in router.routes if isinstance(route, APIRoute))
    named = (f"{method} {route.path}" for route in routes for method in sorted(route.methods or ()))
    return [name for name in named if name.replace("HEAD ", "GET ") not in ACCESS]
