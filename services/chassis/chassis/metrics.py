"""Metrics in the Prometheus exposition format, for an operator's alerts."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Gauge, generate_latest

Sample = Callable[[], Awaitable[None]]
"""Sets metrics that are measured when they are asked for; what it raises means that a back end is away."""


def metrics_routes(dead_letters: Callable[[], Awaitable[dict[str, int]]], *samples: Sample) -> APIRouter:
    """Return the /metrics route: what this process has counted, and what is measured when it is asked.

    While a back end is away, what only it knows is left out: no old count is taken for a new one. Replicas report the
    same numbers for queues and collections that they share: take the maximum.
    """
    measured = CollectorRegistry()
    gauge = Gauge("sori_dead_letters", "Messages set aside that wait for an operator.", ["queue"], registry=measured)

    async def count_dead_letters() -> None:
        gauge.clear()
        for queue, count in (await dead_letters()).items():
            gauge.labels(queue).set(count)

    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        for sample in (count_dead_letters, *samples):
            try:
                await sample()
            except Exception:  # noqa: BLE001, S112 - whatever a driver raises means that it is away; /health says so
                continue
        return Response(generate_latest(measured) + generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return router
