"""Health endpoints: whether the process is alive, whether it is ready, and what it can reach."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter, Request, Response

from contracts.api import Health

Check = Callable[[], Awaitable[bool]]
DeadLetters = Callable[[], Awaitable[dict[str, int]]]
Warnings = Callable[[], Awaitable[list[str]]]
CHECK_SECONDS = 2.0


async def _run(check: Check) -> Literal["up", "down"]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return "up" if await check() else "down"
    except Exception:  # noqa: BLE001 - whatever a driver raises means that it is down
        return "down"


def everybody(_: Request) -> bool:
    """Let every caller see what the service can reach."""
    return True


async def _told(warnings: Warnings) -> list[str]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await warnings()
    except Exception:  # noqa: BLE001 - as above; the checks report the outage
        return []


async def _waiting(dead_letters: DeadLetters) -> list[str]:
    counts = await dead_letters()
    return [
        f"dead letters of {queue}: {count}, see sorictl dead-letters list --queue {queue}"
        for queue, count in counts.items()
        if count
    ]


def health_routes(
    service: str,
    checks: Mapping[str, Check],
    dead_letters: DeadLetters,
    warnings: Sequence[Warnings] = (),
    may_see_details: Callable[[Request], bool] = everybody,
) -> APIRouter:
    """Return /health, /health/live and /health/ready for a service that needs all of `checks`.

    /health also warns of dead letters, by queue, and adds the service's own `warnings`. Warnings need somebody's
    attention, but do not keep the service from working. A caller who may not see details gets the status alone.
    """
    router = APIRouter(prefix="/health", tags=["health"])

    async def report(request: Request, response: Response) -> Health:
        """Say what this service can reach; 503 when it cannot do its work."""
        outcomes = await asyncio.gather(*(_run(check) for check in checks.values()))
        found = dict(zip(checks, outcomes, strict=True))
        ready = all(outcome == "up" for outcome in outcomes)
        response.status_code = 200 if ready else 503
        shown = found if may_see_details(request) else {}
        status: Literal["ok", "unavailable"] = "ok" if ready else "unavailable"
        return Health(status=status, service=service, version=version(f"sori-{service}"), checks=shown)

    async def report_with_warnings(request: Request, response: Response) -> Health:
        """Say what this service can reach, and what somebody should look at; 503 when it cannot do its work."""
        health = await report(request, response)
        if not may_see_details(request):
            return health
        told = await asyncio.gather(*(_told(some) for some in warnings), _told(lambda: _waiting(dead_letters)))
        return health.model_copy(update={"warnings": [warning for some in told for warning in some]})

    async def live() -> dict[str, str]:
        """Say that the process runs."""
        return {"status": "ok"}

    router.add_api_route(
        "", report_with_warnings, summary="What is up, what is not", responses={503: {"model": Health}}
    )
    router.add_api_route("/ready", report, summary="Whether this service can work", responses={503: {"model": Health}})
    router.add_api_route("/live", live, summary="Whether the process runs")
    return router
