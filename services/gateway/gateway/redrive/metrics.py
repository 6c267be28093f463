"""How far the redrive is behind, for an operator's alerts."""

import math

from prometheus_client import Gauge

from chassis.metrics import Sample
from gateway.redrive.documents import Redrives

OLDEST = Gauge(
    "sori_oldest_publish_at_seconds",
    "When the longest due of all unfinished jobs is, or was, to be looked at (Unix time). NaN: none is unfinished.",
)


def longest_due(redrives: Redrives) -> Sample:
    """Return what measures `sori_oldest_publish_at_seconds`. A time in the past means that the redrive is behind."""

    async def sample() -> None:
        OLDEST.set(math.nan)
        moment = await redrives.longest_due()
        if moment is not None:
            OLDEST.set(moment.timestamp())

    return sample
