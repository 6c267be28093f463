"""One job whose analysis server never calls back, listened to from its beginning until it is given up."""

import time
from dataclasses import dataclass, field
from datetime import timedelta

import httpx

from contracts.events import AnalysisRequested, AudioStored
from tests.support.broker import Overheard
from tests.support.sse import Block, listening

ASKED_AGAIN_SECONDS = 110.0
"""By then an overdue analysis is asked for again or given up: a bridge does neither until it has consumed for 75 s."""


@dataclass
class Unanswered:
    """The job, and everything that its listener heard, each with the seconds since it began to listen."""

    job_id: str
    token_id: str
    heard: list[tuple[float, Block]] = field(default_factory=list)
    overheard: Overheard = field(default_factory=Overheard)
    """The events that services published meanwhile; empty when nobody listened to them."""

    async def listen(self, client: httpx.AsyncClient, url: str, until_seconds: float = ASKED_AGAIN_SECONDS) -> None:
        """Listen to the end of the stream, or for `until_seconds`."""
        began = time.monotonic()
        async with listening(client, url) as stream:
            async for block in stream.all():
                self.heard.append((time.monotonic() - began, block))
                if time.monotonic() - began > until_seconds:
                    return


def end_of_first_wait(overheard: Overheard, job_id: str, timeout_seconds: float) -> float:
    """When the wait for the first answer ends, as the bridge itself has announced; checks that it is long enough.

    The wait cannot be measured at the analysis server: it begins before the first request is sent, but the server notes
    the time after it has read the whole request.
    """
    stored, requested = overheard.of(job_id, AudioStored)[0], overheard.of(job_id, AnalysisRequested)[0]
    assert isinstance(requested, AnalysisRequested)
    assert requested.data.attempt == 1
    assert requested.data.deadline - stored.time >= timedelta(seconds=timeout_seconds)
    # The bridge acts on the deadline that MongoDB keeps, which is in whole milliseconds.
    return int(requested.data.deadline.timestamp() * 1000) / 1000
