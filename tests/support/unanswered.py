"""One job whose analysis server never calls back, listened to from its beginning until it is given up."""

import time
from dataclasses import dataclass, field

import httpx

from tests.support.sse import Block, listening

LIMIT_SECONDS = 60.0


@dataclass
class Unanswered:
    """The job, and everything that its listener heard, each with the seconds since it began to listen."""

    job_id: str
    token_id: str
    heard: list[tuple[float, Block]] = field(default_factory=list)

    async def listen(self, client: httpx.AsyncClient, url: str, until_seconds: float = LIMIT_SECONDS) -> None:
        """Listen to the end of the stream, or for so long."""
        began = time.monotonic()
        async with listening(client, url) as stream:
            async for block in stream.all():
                self.heard.append((time.monotonic() - began, block))
                if time.monotonic() - began > until_seconds:
                    return
