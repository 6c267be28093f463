"""The health routes: /health/live and /health/ready for an orchestrator, /health for people."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from analysis_server import SERVICE
from analysis_server.jobs import JobsInHand
from analysis_server.storage import Bucket
from analysis_server.workers import Workers

_VERSION = version("sori-analysis-server")


def health_routes(storage: Bucket, workers: Workers, jobs: JobsInHand) -> APIRouter:
    """Return the three health routes; ready and /health answer 503 while a check is down."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", summary="Say that the process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/health/ready", summary="Say whether a recording could be analysed now")
    async def ready() -> JSONResponse:
        return _answer(await checks(), {})

    @router.get("/health", summary="Say what is up, what is not, and how much work is in hand")
    async def health() -> JSONResponse:
        return _answer(await checks(), {"jobs_in_hand": len(jobs)})

    async def checks() -> dict[str, str]:
        return {
            "storage": "up" if await storage.is_reachable() else "down",
            "workers": "up" if workers.are_up else "down",
        }

    return router


def _answer(checks: dict[str, str], more: dict[str, Any]) -> JSONResponse:
    is_up = "down" not in checks.values()
    body = {"status": "ok" if is_up else "unavailable", "service": SERVICE, "version": _VERSION, "checks": checks}
    return JSONResponse(body | more, status_code=200 if is_up else 503)
