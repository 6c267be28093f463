"""Metrics in the Prometheus exposition format, for an operator's alerts."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest


def metrics_routes(dead_letters: Callable[[], Awaitable[dict[str, int]]]) -> APIRouter:
    """Return the /metrics route. Replicas report the same counts for queues that they share: take the maximum."""
    registry = CollectorRegistry()
    gauge = Gauge("sori_dead_letters", "Messages set aside that wait for an operator.", ["queue"], registry=registry)
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        """Count when asked; 503 when the broker is away, so that no old count is taken for a new one."""
        try:
            counts = await dead_letters()
        except Exception:  # noqa: BLE001 - whatever the driver raises means that it is away
            return Response(status_code=503)
        for queue, count in counts.items():
            gauge.labels(queue).set(count)
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router
