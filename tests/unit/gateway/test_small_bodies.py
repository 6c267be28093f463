"""Bodies of JSON are bounded before they are in memory, at every route that takes one."""

from typing import Annotated

import httpx
from fastapi import APIRouter, Body, FastAPI
from fastapi.routing import APIRoute

from gateway.app import ROUTERS
from gateway.web.problems import handle_errors
from gateway.web.small_bodies import MAX_BODY_BYTES, SmallBodyRoute
from tests.support.answers import assert_problem


def test_every_route_that_takes_json_bounds_it() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    taking = [route for route in routes if route.body_field is not None]
    assert "/auth/google-login" in {route.path for route in taking}
    assert [route.path for route in taking if not isinstance(route, SmallBodyRoute)] == []


async def length(text: Annotated[str, Body()]) -> int:
    return len(text)


async def test_a_body_is_read_as_far_as_it_may_be_long() -> None:
    router, app = APIRouter(route_class=SmallBodyRoute), FastAPI()
    router.add_api_route("/", length, methods=["POST"])
    handle_errors(app)
    app.include_router(router)
    longest = b'"' + b"a" * (MAX_BODY_BYTES - 2) + b'"'
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sori", headers=headers) as client:
        taken = await client.post("/", content=longest)
        assert (taken.status_code, taken.json()) == (200, MAX_BODY_BYTES - 2)
        assert_problem(await client.post("/", content=longest + b" "), 413, "body_too_large")
