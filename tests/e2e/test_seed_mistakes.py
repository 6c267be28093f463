"""Each known mistake of the seed: gone here, and still there in the baseline, or the check would show nothing.

Every test runs against both. What it asserts under `mistake_is_gone` holds for Sori and must fail for the baseline;
everything else holds for both.
"""

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import pytest

from local_stack.stack import Stack
from tests.bench.peers import servers as peers
from tests.conftest import MAX_UPLOAD_BYTES, Baseline
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import PROGRAMS_TALK
from tests.support.bucket import Bucket
from tests.support.recordings import wav_blocks
from tests.support.sori import Sori, State, new_token
from tests.support.sse import heard
from tests.support.stacks import BASELINE_OFFSET, kill_and_await
from tests.support.unanswered import Unanswered
from tests.support.waiting import until

MIB = 1024 * 1024
RESULT = {"status": "success", "result": {"score": 1}}
HEARTBEAT_WITHIN_SECONDS = 16.5


@dataclass(frozen=True)
class System:
    """One of the two, by the same surface."""

    name: str
    sori: Sori
    pids: Callable[[], list[int]]

    @contextmanager
    def mistake_is_gone(self) -> Iterator[None]:
        """What is asserted within must hold for Sori, and fail for the baseline."""
        if self.name == "sori":
            yield
        else:
            with pytest.raises(AssertionError):
                yield


@pytest.fixture(params=["sori", "baseline"])
def system(request: pytest.FixtureRequest, stack: Stack, sori: Sori, baseline: Baseline) -> System:
    """Both, one after the other."""
    if request.param == "baseline":
        return System("baseline", Sori(sori.client, baseline.url, "none"), lambda: [baseline.pid])
    takers = [f"{service}-{replica}" for service in ("gateway", "uploader") for replica in (1, 2)]
    return System("sori", sori, lambda: [pid for part in takers for pid in stack.pids(part)])


async def state_with(sori: Sori, job_id: str, fact: Callable[[State], bool]) -> State:
    """The job's state once this can be said of it."""

    async def look() -> State | None:
        state = await sori.state(job_id)
        return state if fact(state) else None

    return await until(look, f"a fact about job {job_id}")


async def test_a_failed_webhook_is_not_stored_as_completed(system: System) -> None:
    job_id = await system.sori.job(token_id=new_token("fail"))
    told = await state_with(system.sori, job_id, lambda state: state["status"] != "processing" or "result" in state)
    with system.mistake_is_gone():
        assert told["status"] == "failed"


async def test_a_refused_analysis_does_not_hang_at_90(system: System) -> None:
    job_id = await system.sori.job(token_id=new_token("http-400"))
    told = await state_with(
        system.sori, job_id, lambda state: state["status"] != "processing" or state["progress"] == 90
    )
    with system.mistake_is_gone():
        assert told["status"] == "failed"


async def test_a_webhook_that_comes_before_the_90_does_not_make_progress_fall(system: System) -> None:
    job_id = await system.sori.job(token_id=new_token("webhook-before-answer"))
    told = await state_with(system.sori, job_id, lambda state: "result" in state and "s3_url" in state)
    with system.mistake_is_gone():
        assert (told["status"], told["progress"]) == ("completed", 100)


async def test_a_webhook_for_an_unknown_job_creates_none(system: System) -> None:
    job_id = str(uuid.uuid4())
    await system.sori.webhook(job_id, RESULT)
    answer = await system.sori.result(job_id)
    with system.mistake_is_gone():
        assert answer.status_code == 404


async def test_not_everybody_can_post_a_webhook(system: System) -> None:
    job_id = await system.sori.job(token_id=new_token("never-calls-back"))
    await system.sori.reached(job_id, 90)
    unsigned = f"{system.sori.url}/webhook/analysis-complete?job_id={job_id}"
    answer = await system.sori.client.post(unsigned, json=RESULT)
    with system.mistake_is_gone():
        assert answer.status_code == 401
    told = await system.sori.state(job_id)
    with system.mistake_is_gone():
        assert told["status"] == "processing"


@dataclass(frozen=True)
class TwoProcesses:
    """Two processes that both serve results, and a way to restart the first."""

    first: Sori
    second: Sori
    restart_first: Callable[[], Awaitable[None]]


@asynccontextmanager
async def two_processes(system: System, stack: Stack) -> AsyncIterator[TwoProcesses]:
    client = system.sori.client
    if system.name == "sori":
        first, second = (Sori(client, stack.parts[part].address, "none") for part in ("gateway-1", "gateway-2"))
        yield TwoProcesses(first, second, lambda: kill_and_await(stack, "gateway-1"))
        return
    ports = [stack.plan.ports.edge + BASELINE_OFFSET + number for number in (1, 2)]
    first, second = (Sori(client, f"http://127.0.0.1:{port}", "none") for port in ports)
    servers = [peers.baseline(port, stack.settings, stack.log(f"baseline-{port}")) for port in ports]

    async def restart_first() -> None:
        await asyncio.to_thread(servers[0].__exit__, None, None, None)
        await asyncio.to_thread(servers[0].__enter__)

    with servers[0], servers[1]:
        yield TwoProcesses(first, second, restart_first)


async def test_jobs_outlive_a_restart_and_are_the_same_to_every_process(system: System, stack: Stack) -> None:
    async with two_processes(system, stack) as processes:
        job_id = await processes.first.job()
        before = await state_with(processes.first, job_id, lambda state: "result" in state)
        elsewhere = await processes.second.result(job_id)
        with system.mistake_is_gone():
            assert (elsewhere.status_code, elsewhere.json()) == (200, before)
        await processes.restart_first()
        after = await processes.first.result(job_id)
        with system.mistake_is_gone():
            assert (after.status_code, after.json()) == (200, before)


async def test_a_large_file_is_never_held_in_memory(system: System) -> None:
    # At its first large upload a process takes what it keeps for all later ones; three reach every replica.
    warm_ups = await asyncio.gather(*(send_large(system.sori) for _ in range(3)))
    assert [state["progress"] for state in warm_ups] == [100] * 3
    idle = memory(system)
    peaks = dict(idle)
    sending = asyncio.create_task(send_large(system.sori))

    async def look() -> bool:
        for pid, now in memory(system).items():
            peaks[pid] = max(peaks.get(pid, 0), now)
        return sending.done()

    await until(look, "the end of a large upload", limit_seconds=60)
    assert (await sending)["status"] == "completed"
    grown = {pid: (peaks[pid] - idle[pid]) / MIB for pid in idle}
    with system.mistake_is_gone():
        assert max(grown.values()) < MAX_UPLOAD_BYTES / MIB / 2, grown


async def test_a_clients_file_name_does_not_go_into_the_key(system: System, bucket: Bucket) -> None:
    name = uuid.uuid4().hex
    job_id = await system.sori.job(token_id=new_token("never-calls-back"), filename=f"folder/{name} ?#.wav")
    await system.sori.reached(job_id, 90)
    keys = await bucket.keys()
    assert any(job_id in key for key in keys)
    with system.mistake_is_gone():
        assert not any(name in key or "folder" in key for key in keys)


async def test_no_exceptions_text_is_shown(system: System) -> None:
    jobs = [await system.sori.job(filename="x" * 1_500 + ".wav"), await system.sori.job(b"this is no audio")]
    told = [
        await state_with(system.sori, job_id, lambda s: s["status"] != "processing" or "result" in s) for job_id in jobs
    ]
    with system.mistake_is_gone():
        assert not PROGRAMS_TALK.search(json.dumps(told))


async def test_a_stream_says_only_what_has_changed(system: System) -> None:
    job_id = await system.sori.job(token_id=new_token("slow"))
    messages = await heard(system.sori.client, system.sori.progress_url(job_id))
    with system.mistake_is_gone():
        assert all(earlier.data != later.data for earlier, later in itertools.pairwise(messages))


async def test_every_message_has_an_id_to_go_on_from(system: System) -> None:
    messages = await heard(system.sori.client, system.sori.progress_url(await system.sori.job()))
    with system.mistake_is_gone():
        assert all(message.id for message in messages)


async def test_a_stream_of_an_unknown_job_is_404(system: System) -> None:
    answer = await system.sori.client.get(system.sori.progress_url(str(uuid.uuid4())))
    with system.mistake_is_gone():
        assert answer.status_code == 404


async def test_a_waiting_stream_has_heartbeats(system: System, unanswered: Unanswered) -> None:
    listener = unanswered
    if system.name == "baseline":
        token_id = new_token("never-calls-back")
        listener = Unanswered(await system.sori.job(token_id=token_id), token_id)
        url = system.sori.progress_url(listener.job_id)
        await listener.listen(system.sori.client, url, until_seconds=HEARTBEAT_WITHIN_SECONDS)
    with system.mistake_is_gone():
        assert any(block.comments and at < HEARTBEAT_WITHIN_SECONDS for at, block in listener.heard)


async def test_the_connection_to_the_analysis_server_serves_more_than_one_job(
    system: System, analysis_server: AnalysisServer
) -> None:
    connections: set[object] = set()
    for _ in range(6):
        token_id = new_token()
        job_id = await system.sori.job(token_id=token_id)
        await state_with(system.sori, job_id, lambda state: "result" in state)
        connections |= await analysis_server.connections_for(token_id)
    # One for each replica that calls, and one to spare.
    with system.mistake_is_gone():
        assert len(connections) <= 3


def memory(system: System) -> dict[int, int]:
    """Resident bytes of each process that takes recordings in."""
    return {pid: psutil.Process(pid).memory_info().rss for pid in system.pids()}


async def send_large(sori: Sori) -> dict[str, Any]:
    """Send the largest recording that is taken, made while it is sent; gives the job's last state."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--large\r\nContent-Disposition: form-data; name="file"; filename="large.wav"\r\n\r\n'
        for block in wav_blocks(MAX_UPLOAD_BYTES, seed=12, rate=192_000, channels=8):
            yield block
        yield b"\r\n--large--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=large"}
    url = f"{sori.url}/tokens/{new_token()}/upload-audio"
    answer = await sori.client.post(url, content=body(), headers=headers, timeout=httpx.Timeout(60))
    assert answer.status_code == 202, answer.text
    return await sori.ended(answer.json()["job_id"])
