"""A front end as it should be: it sends a recording until that is accepted, and listens until the job's end."""

import asyncio
import random
import uuid
from contextlib import suppress

import httpx

from tests.support.sse import Block, assert_taken_by_a_browser, followed, listening

PASSING = {409, 429, 502, 503, 504}
"""Answers after which the same request may succeed; 409: the first copy of it is still being worked on."""
PAUSE_SECONDS = 0.3
"""About how long a page waits before it tries again, where it is not told how long."""


class FrontEnd:
    """Pages of the front end at `url`. They pause as real pages do, so that an outage is not flooded with requests."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self.broken: list[tuple[float, float]] = []
        """The beginning and end, on the event loop's clock, of each upload that no gateway has answered."""

    async def send(self, recording: bytes, token_id: str) -> str:
        """Send it under one Idempotency-Key until accepted; returns the job's id. A refusal is an AssertionError."""
        headers = {"Idempotency-Key": f'"{uuid.uuid4()}"'}
        while True:
            answer = await self._try(recording, token_id, headers)
            if answer is not None and answer.status_code not in PASSING:
                assert answer.status_code == 202, f"{answer.status_code} {answer.text}"
                return str(answer.json()["job_id"])
            await _pause(answer)

    async def follow(self, job_id: str) -> list[Block]:
        """Every message to a browser that listens to the job, and comes back until it is told not to (204)."""
        address = f"{self._url}/tokens/analysis-progress/{job_id}"
        messages = await followed(self._client, address)
        while True:
            with suppress(httpx.TransportError):
                async with listening(self._client, address, last_event_id=messages[-1].id) as stream:
                    if stream.response.status_code == 204:
                        return messages
                    await assert_taken_by_a_browser(stream.response)
                    messages += await stream.to_end()
            await _pause(None)

    async def _try(self, recording: bytes, token_id: str, headers: dict[str, str]) -> httpx.Response | None:
        began = asyncio.get_running_loop().time()
        answer = None
        with suppress(httpx.TransportError):
            files = {"file": ("recording.wav", recording, "audio/wav")}
            address = f"{self._url}/tokens/{token_id}/upload-audio"
            answer = await self._client.post(address, files=files, headers=headers)
        if answer is None or answer.status_code == 502:
            self.broken.append((began, asyncio.get_running_loop().time()))
        return answer


async def _pause(answer: httpx.Response | None) -> None:
    told = float(answer.headers.get("retry-after", 0)) if answer is not None else 0.0
    await asyncio.sleep(told or PAUSE_SECONDS * random.uniform(0.5, 1.5))
