"""Replicas that are killed in the middle of their work: the other goes on, and no job is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from contracts import topology
from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_problem
from tests.support.bucket import Bucket
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.sse import followed
from tests.support.stacks import kill_and_await
from tests.support.waiting import until

JOBS = 24


@pytest.fixture(autouse=True)
async def crashes_leave_nothing_to_other_tests(bucket: Bucket) -> AsyncIterator[None]:
    """What a killed process leaves in the inbox is found by its age, long after the tests are over."""
    yield
    await bucket.clear_inbox()


async def accepted(sori: Sori, token_id: str, seed: int, each: Callable[[], None]) -> str:
    """Send a recording, again if its gateway died meanwhile; gives the job that was promised."""

    async def look() -> str | None:
        try:
            answer = await sori.upload(wav(0.5, seed=seed), token_id)
        except httpx.TransportError:
            return None
        return str(answer.json()["job_id"]) if answer.status_code == 202 else None

    job_id = await until(look, "an accepted upload")
    each()
    return job_id


@pytest.mark.parametrize("service", topology.SERVICES)
async def test_killing_a_replica_with_jobs_in_flight_loses_nothing(stack: Stack, sori: Sori, service: str) -> None:
    tokens = [new_token("slow" if number % 3 == 0 else "normal") for number in range(JOBS)]
    in_flight = asyncio.Event()
    uploads = [asyncio.create_task(accepted(sori, t, 1000 + n, in_flight.set)) for n, t in enumerate(tokens)]
    await in_flight.wait()
    killed = asyncio.create_task(kill_and_await(stack, f"{service}-1"))
    jobs = await asyncio.gather(*uploads)
    streams = await asyncio.gather(*(followed(sori.client, sori.progress_url(job_id)) for job_id in jobs))
    await killed
    for job_id, token_id, messages in zip(jobs, tokens, streams, strict=True):
        assert [int(message.id or 0) for message in messages] == list(range(1, len(messages) + 1))
        state = await sori.state(job_id)
        assert messages[-1].state == state
        assert (state["status"], state["result"]["video_id"]) == ("completed", token_id)
        assert job_id in state["result"]["s3_audio_url"]


@pytest.mark.parametrize(
    ("service", "path"), [("gateway", "/health"), ("notifier", "/tokens/analysis-progress/nobody")]
)
async def test_while_no_replica_is_there_the_edge_says_so(
    stack: Stack, client: httpx.AsyncClient, service: str, path: str
) -> None:
    killed = asyncio.create_task(kill_and_await(stack, f"{service}-1", f"{service}-2"))
    for language, header in LANGUAGES.items():
        headers = {"Accept-Language": header, "Origin": "https://front.example"}

        async def look(headers: dict[str, str] = headers) -> httpx.Response | None:
            answer = await client.get(stack.url + path, headers=headers)
            return answer if answer.status_code == 502 else None

        answer = await until(look, "the edge's own answer")
        assert_problem(answer, 502, "upstream_unavailable", language)
        assert int(answer.headers["retry-after"]) > 0
        assert answer.headers["access-control-allow-origin"] == "https://front.example"
    await killed
    assert (await client.get(stack.url + path)).status_code in {200, 404}
