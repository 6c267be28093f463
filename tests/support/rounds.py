"""Rounds of jobs during a fault: every accepted job must complete as promised, and its listener must see that."""

import asyncio
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.front_end import FrontEnd
from tests.support.recordings import wav
from tests.support.sori import Sori, State, new_token
from tests.support.sse import Block

BEHAVIOURS = ("normal", "normal", "slow", "webhook-before-answer", "calls-twice")
"""How the analysis server treats the jobs of a round, in turn; each of them ends well."""
END_SECONDS = 90.0


@dataclass
class Sent:
    """One job of a round, with what its listener heard."""

    token_id: str
    job_id: str
    heard: list[Block] = field(default_factory=list)
    ended_after_seconds: float = 0.0


class Rounds:
    """Sends jobs through one edge, and prints what the test did with the seconds since it began."""

    def __init__(self, front_end: FrontEnd, sori: Sori, seed: int, about: str) -> None:
        self.random = random.Random(f"{seed} {about}")
        self._front_end = front_end
        self._sori = sori
        self._began = time.monotonic()
        self.say(f"{about}; seed {seed}")

    def say(self, what: str) -> None:
        """Print what is done, and when."""
        print(f"{time.monotonic() - self._began:7.2f} s  {what}", flush=True)

    async def run(
        self, count: int, limit_seconds: float = END_SECONDS, behaviours: Sequence[str] = BEHAVIOURS
    ) -> list[Sent]:
        """Send `count` jobs at once; returns when each has completed as promised, and prints how long that took."""
        began = time.monotonic()
        sending = [self._carry(behaviours[number % len(behaviours)], began) for number in range(count)]
        async with asyncio.timeout(limit_seconds):
            jobs = await asyncio.gather(*sending)
        for job in jobs:
            await self.check(job)
        slowest = max(job.ended_after_seconds for job in jobs)
        self.say(f"{count} jobs completed, the slowest after {slowest:.1f} s")
        return jobs

    async def accepted(self, behaviour: str = "normal") -> Sent:
        """Send one job; returns once it was accepted."""
        token_id = new_token(behaviour)
        # No two recordings are alike: an answer from the bridge's cache would bypass the analysis server.
        recording = wav(0.4, seed=uuid.uuid4().int % 2**32)
        return Sent(token_id, await self._front_end.send(recording, token_id))

    async def ended(self, job: Sent, began: float) -> None:
        """Listen to the end of a job, as a browser does."""
        job.heard = await self._front_end.follow(job.job_id)
        job.ended_after_seconds = time.monotonic() - began

    async def check(self, job: Sent) -> State:
        """Check that the listener heard each state once, in order, and that the job completed with its own result."""
        ids = [int(block.id or 0) for block in job.heard]
        assert ids == list(range(1, len(ids) + 1)), f"job {job.job_id}: not each state exactly once: {ids}"
        progress = [block.state["progress"] for block in job.heard]
        assert progress == sorted(progress), f"job {job.job_id}: progress went back: {progress}"
        state = await self._sori.state(job.job_id)
        assert job.heard[-1].state == state, f"heard {job.heard[-1].state}, read {state}"
        assert state["status"] == "completed", state
        asked = {"video_id": job.token_id, "s3_audio_url": f"s3://sori/audio/{job.job_id}.wav", "score": 87.5}
        assert state["result"] == asked, state
        return state

    async def _carry(self, behaviour: str, began: float) -> Sent:
        job = await self.accepted(behaviour)
        await self.ended(job, began)
        return job
