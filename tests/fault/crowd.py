"""The users of a kill run: each sends a recording that nobody else has, listens to its job, and says what was wrong."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis_server.analysis import analyse
from tests.support.front_end import FrontEnd
from tests.support.recordings import wav
from tests.support.sori import State, new_token
from tests.support.sse import Block

LARGE_EVERY, LARGE_SECONDS, LARGE_RATE = 15, 16, 192_000
"""One user in LARGE_EVERY sends 6 MB or more, which goes to S3 in parts and takes a while on every way."""


@dataclass
class User:
    """One user: the recording sent, the job promised, the states heard."""

    number: int
    token_id: str
    duration_s: float
    recording: bytes
    job_id: str | None = None
    heard: list[Block] = field(default_factory=list)


class Crowd:
    """Sends recordings in bursts, so that the services have their hands full when one of them is killed."""

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self._waits: dict[asyncio.Task[None], User] = {}
        self.content = 0
        """How many users had nothing to complain of when `complaints` was last called."""

    @property
    def users(self) -> list[User]:
        """Everyone so far."""
        return list(self._waits.values())

    @property
    def under_way(self) -> int:
        """How many have not heard the end of their job."""
        return sum(not task.done() for task in self._waits)

    def burst(self, size: int) -> list[User]:
        """Let `size` users begin, all at once."""
        first = len(self._waits)
        users = [_user(number) for number in range(first, first + size)]
        for user in users:
            self._waits[asyncio.create_task(self._live(user))] = user
        return users

    async def end(self, limit_seconds: float) -> None:
        """Wait until everyone has heard the end, for `limit_seconds` at most; `complaints` names those who did not."""
        _, waiting = await asyncio.wait(self._waits, timeout=limit_seconds)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*self._waits, return_exceptions=True)

    def complaints(self, states: dict[str, State]) -> list[str]:
        """What is wrong, one line for each user with a complaint; `states` are the jobs as they stand now."""
        found = []
        for task, user in self._waits.items():
            wrong: str | None
            if task.cancelled():
                state = states.get(user.job_id or "", {})
                wrong = f"never heard the end; it stands at {state.get('stage')}, {state.get('progress')} %"
            elif (error := task.exception()) is not None:
                wrong = f"{type(error).__name__}: {error}"
            else:
                wrong = _wrong(user, states.get(user.job_id or "", {}))
            if wrong:
                found.append(f"user {user.number}, job {user.job_id}: {wrong}")
        self.content = len(self._waits) - len(found)
        return found

    async def _live(self, user: User) -> None:
        user.job_id = await self._front_end.send(user.recording, user.token_id)
        user.heard = await self._front_end.follow(user.job_id)


def _user(number: int) -> User:
    """No two recordings have the same length (in whole milliseconds), so a result of the wrong recording is noticed."""
    large = number % LARGE_EVERY == LARGE_EVERY - 1
    duration_s = (500 + number) / 1000 + (LARGE_SECONDS if large else 0)
    rate = LARGE_RATE if large else 16_000
    return User(number, new_token(), duration_s, wav(duration_s, seed=number, rate=rate))


def _wrong(user: User, state: State) -> str | None:
    """What is wrong with what a user heard to the end, or with the job as it stands."""
    return wrong_story(user.heard) or wrong_end(user, user.heard[-1].state, state)


def wrong_story(heard: list[Block]) -> str | None:
    """What is wrong with what a listener heard: each id once and in order, progress never falls, one end at the end."""
    ids = [int(block.id or 0) for block in heard]
    progress = [block.state["progress"] for block in heard]
    ends = [block.id for block in heard if block.state["status"] != "processing"]
    if ids != list(range(1, len(ids) + 1)):
        return f"the ids were {ids}"
    if progress != sorted(progress):
        return f"progress went back: {progress}"
    if ends != [heard[-1].id]:
        return f"the job ended at {ends} of {ids}"
    return None


def wrong_end(user: User, end: State, state: State) -> str | None:
    """What is wrong with the end that a listener heard, or with `state`, the job as it stands."""
    if end["status"] != "completed":
        return f"it ended as {end['status']}, {end.get('error')}"
    if end != state:
        differ = {
            name: (end.get(name), state.get(name)) for name in end.keys() | state if end.get(name) != state.get(name)
        }
        return f"what was heard is not what is read: {differ}"
    if state["token_id"] != user.token_id or not state["s3_url"].endswith(f"/audio/{user.job_id}.wav"):
        return f"it is of another recording: {state['token_id']}, {state['s3_url']}"
    if state["result"] != expected(user.recording) or state["result"]["duration_s"] != user.duration_s:
        return f"its result is of another recording: of {state['result']['duration_s']} s, not {user.duration_s} s"
    return None


def expected(recording: bytes) -> dict[str, Any]:
    """What the analysis server gives for a recording when nothing is killed."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(recording)
        file.flush()
        return analyse(Path(file.name), [], None, 3600)
