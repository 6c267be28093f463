"""The load client: a process of its own that uploads, listens until the terminal event, and checks the result.

The same client measures every system. Run as `python -m tests.bench.load PLAN` (a Plan as JSON): it makes
its recordings, prints `ready`, waits for a line on standard input, does the work, prints an Outcome as
JSON, and ends when standard input closes, so that its CPU time can be read before it is gone.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import aiohttp
import uvloop

from tests.support.recordings import browser_recording, wav_blocks, wav_of_size

_BOUNDARY = "sori-bench-boundary"
_TAIL = f"\r\n--{_BOUNDARY}--\r\n".encode()
_KEPT_IN_MEMORY_BYTES = 8 * 1024 * 1024
_LOST_BESIDES_THOSE_AT_ONCE = 4


@dataclass(frozen=True)
class Plan:
    """What to send: `jobs` recordings, `at_once` of them under way at any time.

    A WAV has `size_bytes`; a WebM is what a browser records in 10 s, the same for all jobs. Without `listen` a job is
    over when its upload has been answered.

    A job that has not ended after `patience_seconds` is given up and counted as lost; when a few more are
    lost than are at once under way, the rest are not sent and count as lost too.
    """

    url: str
    jobs: int
    at_once: int
    seed: int
    form: Literal["wav", "webm"] = "wav"
    size_bytes: int = 0
    rate: int = 16000
    channels: int = 1
    listen: bool = True
    patience_seconds: float = 20.0


@dataclass
class Outcome:
    """What came of a plan. Both times run from the first byte sent: `seconds` to the end of the last job that was not
    lost, `upload_seconds` to the last upload's answer. `job_ms`, from the start of the upload to the job's end, has one
    entry per job that was not lost, `accept_ms` one per upload that was answered, and `job_ids` too.

    `fell_back` counts jobs whose stream showed the result together with "processing": their terminal state was
    overwritten, so a listener would wait for ever. They still count as done, which favours the system that does this.
    Otherwise its throughput would mostly measure how long the client waits.
    """

    completed: int = 0
    fell_back: int = 0
    lost: list[str] = field(default_factory=list)
    seconds: float = 0.0
    upload_seconds: float = 0.0
    job_ms: list[float] = field(default_factory=list)
    accept_ms: list[float] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)

    @property
    def jobs_per_second(self) -> float:
        """Jobs per second, lost ones left out; 0 when none was done."""
        return (self.completed + self.fell_back) / self.seconds if self.seconds else 0.0


class AnswerError(Exception):
    """The system answered, but not with what this job must get."""


class LoadClient:
    """Carries out one plan."""

    def __init__(self, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._plan = plan
        self._session = session
        self._head = _head(plan.form)
        self._bodies = self._small_bodies()
        self._outcome = Outcome()
        self._started = 0.0

    async def run(self) -> Outcome:
        """Send everything; never raises for what the system does wrong, but records it."""
        numbers = iter(range(self._plan.jobs))
        self._started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.at_once):
                group.create_task(self._work(numbers))
        return self._outcome

    async def _work(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            if len(self._outcome.lost) > self._plan.at_once + _LOST_BESIDES_THOSE_AT_ONCE:
                self._outcome.lost.append("not sent, for too many were lost")
                continue
            begun = time.perf_counter()
            try:
                async with asyncio.timeout(self._plan.patience_seconds):
                    ended = await self._job(number)
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError, AnswerError) as error:
                self._outcome.lost.append(f"{type(error).__name__}: {error}"[:200])
            else:
                self._outcome.seconds = max(self._outcome.seconds, ended - self._started)
                self._outcome.job_ms.append((ended - begun) * 1000)

    async def _job(self, number: int) -> float:
        """The whole way of one recording; returns when its terminal event came (perf_counter)."""
        token_id = f"bench-{self._plan.seed}-{number}"
        begun = time.perf_counter()
        job_id = await self._upload(number, token_id)
        accepted = time.perf_counter()
        self._outcome.upload_seconds = max(self._outcome.upload_seconds, accepted - self._started)
        self._outcome.accept_ms.append((accepted - begun) * 1000)
        self._outcome.job_ids.append(job_id)
        if not self._plan.listen:
            self._outcome.completed += 1
            return accepted
        async with self._session.get(f"{self._plan.url}/tokens/analysis-progress/{job_id}") as stream:
            ended, last = await _last_event(stream)
        _check(last, token_id, job_id)
        if last["status"] == "completed":
            self._outcome.completed += 1
        else:
            self._outcome.fell_back += 1
        return ended

    async def _upload(self, number: int, token_id: str) -> str:
        if self._bodies:
            body: bytes | AsyncIterator[bytes] = self._bodies[number % len(self._bodies)]
            size = len(self._bodies[number % len(self._bodies)])
        else:
            body = self._large_body(number)
            size = len(self._head) + self._plan.size_bytes + len(_TAIL)
        headers = {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "Content-Length": str(size),
        }
        url = f"{self._plan.url}/tokens/{token_id}/upload-audio"
        async with self._session.post(url, data=body, headers=headers) as answer:
            if answer.status != 202:
                raise AnswerError(f"upload answered {answer.status}: {await answer.text()}")
            return str((await answer.json())["job_id"])

    def _small_bodies(self) -> list[bytes]:
        """The bodies, made beforehand; none when they are too large for that, and are made while they are sent."""
        if self._plan.form == "webm":
            return [self._head + browser_recording(self._plan.seed) + _TAIL]
        if self._plan.size_bytes > _KEPT_IN_MEMORY_BYTES:
            return []
        return list(map(self._small_body, range(self._plan.jobs)))

    def _small_body(self, number: int) -> bytes:
        return self._head + wav_of_size(self._plan.size_bytes, self._own_seed(number)) + _TAIL

    async def _large_body(self, number: int) -> AsyncIterator[bytes]:
        plan = self._plan
        yield self._head
        for block in wav_blocks(plan.size_bytes, self._own_seed(number), rate=plan.rate, channels=plan.channels):
            yield block
        yield _TAIL

    def _own_seed(self, number: int) -> int:
        return self._plan.seed * 1_000_000 + number


def _head(form: str) -> bytes:
    return (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="recording.{form}"\r\n'
        f"Content-Type: audio/{form}\r\n\r\n"
    ).encode()


async def _last_event(stream: aiohttp.ClientResponse) -> tuple[float, dict[str, Any]]:
    """The event that ends the job, and when it came (perf_counter)."""
    ended, last = 0.0, {}
    # Read to the stream's own end where there is one, so that the connection can be used again.
    async for line in stream.content:
        if line.startswith(b"data:"):
            ended, last = time.perf_counter(), json.loads(line[5:])
            if last.get("status") == "processing" and last.get("result"):
                break
    return ended, last


def _check(last: dict[str, Any], token_id: str, job_id: str) -> None:
    """The job must have ended with its own result; AnswerError otherwise."""
    result = last.get("result") or {}
    right = (
        last.get("status") in ("completed", "processing")
        and result.get("video_id") == token_id
        and job_id in str(result.get("s3_audio_url"))
        and last.get("s3_url") in (None, result["s3_audio_url"])
    )
    if not right:
        raise AnswerError(f"job {job_id} ended with {last}")


async def _run(plan: Plan) -> None:
    # aiohttp's own limits are off: only the plan's count. Idle connections are closed before a server closes them.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        client = LoadClient(plan, session)
        print("ready", flush=True)
        sys.stdin.readline()
        outcome = await client.run()
        print(json.dumps(asdict(outcome)), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    uvloop.run(_run(Plan(**json.loads(sys.argv[1]))))
