"""Live progress: what a listener hears, through the edge and at each notifier replica, however often it is cut off."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from local_stack.stack import Stack
from tests.support.answers import LANGUAGES, assert_sentence
from tests.support.sori import Sori, State, new_token
from tests.support.sse import Block, heard, heard_with_cuts, listening
from tests.support.unanswered import Unanswered

REPLICAS = ("notifier-1", "notifier-2")


def ids(messages: Sequence[Block]) -> list[int]:
    return [int(message.id or "-1") for message in messages]


def progress_at(stack: Stack, replica: str, job_id: str) -> str:
    """Where one replica itself streams the job's progress."""
    return f"{stack.parts[replica].address}/tokens/analysis-progress/{job_id}"


def without_gap_or_repeat(messages: Sequence[Block], first: int | None = None) -> bool:
    numbers = ids(messages)
    return numbers == list(range(numbers[0] if first is None else first, numbers[-1] + 1))


@pytest.fixture(scope="module")
async def ended_job(sori: Sori) -> State:
    """A job that has been through everything."""
    return await sori.completed()


async def test_a_stream_is_one_that_a_browser_takes(sori: Sori, ended_job: State) -> None:
    async with listening(sori.client, sori.progress_url(ended_job["job_id"])) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"].split(";")[0] == "text/event-stream"
        assert "no-store" in stream.response.headers["cache-control"]
        assert "content-length" not in stream.response.headers
        messages = await stream.to_end()
    (retry,) = [block.retry for block in stream.blocks if block.retry]
    assert 1000 <= int(retry) <= 3000
    # A browser's onmessage fires for unnamed messages only, and reconnects with the id of the last one.
    assert all(message.event is None and (message.id or "").isdecimal() for message in messages)
    assert not any(block.unknown for block in stream.blocks)


async def test_what_is_streamed_is_what_the_result_endpoint_gives(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    async with listening(sori.client, sori.progress_url(job_id)) as stream:
        async for message in stream.messages():
            # At 90 the job waits: what both say can be compared.
            if message.state["progress"] == 90:
                assert message.state == await sori.state(job_id)
    assert stream.blocks[-1].state == await sori.state(job_id)
    assert stream.blocks[-1].state["status"] == "completed"


@pytest.mark.parametrize("behaviour", ["normal", "fail"])
async def test_a_stream_ends_after_the_terminal_state(sori: Sori, behaviour: str) -> None:
    messages = await heard(sori.client, sori.progress_url(await sori.job(token_id=new_token(behaviour))))
    statuses = [message.state["status"] for message in messages]
    assert statuses[-1] == ("completed" if behaviour == "normal" else "failed")
    assert set(statuses[:-1]) <= {"processing"}


async def test_a_failure_is_streamed_in_the_listeners_language(sori: Sori) -> None:
    job_id = await sori.job(b"this is no audio at all")
    await sori.ended(job_id)
    for language, header in LANGUAGES.items():
        headers = {"Accept-Language": header}
        async with listening(sori.client, sori.progress_url(job_id), headers=headers) as stream:
            (message,) = await stream.to_end()
        assert message.state == await sori.state(job_id, language)
        assert message.state["error"]["code"] == "not_audio"
        assert_sentence(message.state["error"]["message"], language)


async def test_a_stream_opened_at_the_beginning_hears_every_change(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    messages = await heard(sori.client, sori.progress_url(job_id))
    assert without_gap_or_repeat(messages)
    assert messages[-1].state["status"] == "completed"


async def test_a_stream_opened_in_the_middle_hears_how_the_job_stands_and_what_follows(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    state = await sori.reached(job_id, 90)
    messages = await heard(sori.client, sori.progress_url(job_id))
    assert messages[0].state == state
    assert without_gap_or_repeat(messages)
    assert messages[-1].state["status"] == "completed"


async def test_a_stream_opened_after_the_end_hears_the_end(sori: Sori, ended_job: State) -> None:
    (message,) = await heard(sori.client, sori.progress_url(ended_job["job_id"]))
    assert message.state == ended_job


async def test_from_each_id_on_a_listener_hears_exactly_what_follows_it(sori: Sori, ended_job: State) -> None:
    url = sori.progress_url(ended_job["job_id"])
    all_of_it = await heard(sori.client, url, last_event_id="0")
    assert without_gap_or_repeat(all_of_it, first=1)
    for number, message in enumerate(all_of_it[:-1], start=1):
        assert await heard(sori.client, url, last_event_id=message.id) == all_of_it[number:]


@pytest.mark.parametrize("last_event_id", ["nonsense", "-1", "١", "9" * 40])
async def test_an_id_that_never_was_is_not_believed(sori: Sori, ended_job: State, last_event_id: str) -> None:
    url = sori.progress_url(ended_job["job_id"])
    async with sori.client.stream("GET", url, headers={b"Last-Event-ID": last_event_id.encode()}) as answer:
        assert answer.status_code == 200
        assert b'"completed"' in await answer.aread()


async def test_an_id_from_the_future_keeps_a_listener_of_a_running_job_informed(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    await sori.reached(job_id, 90)
    messages = await heard(sori.client, sori.progress_url(job_id), last_event_id="4000")
    assert [message.state["status"] for message in messages] == ["completed"]


async def test_who_has_had_the_terminal_state_is_told_not_to_come_back(sori: Sori, ended_job: State) -> None:
    url = sori.progress_url(ended_job["job_id"])
    last = (await heard(sori.client, url))[-1]
    answer = await sori.client.get(url, headers={"Last-Event-ID": last.id or ""})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_listener_that_is_cut_off_after_every_message_misses_nothing(sori: Sori) -> None:
    jobs = await asyncio.gather(*(sori.job(token_id=new_token(b)) for b in ("normal", "slow", "slow", "fail")))
    streams = await asyncio.gather(*(heard_with_cuts(sori.client, sori.progress_url(job_id)) for job_id in jobs))
    for messages in streams:
        assert without_gap_or_repeat(messages)
        assert messages[-1].state["stage"] == "done"


async def test_every_replica_tells_its_listeners_of_changes_that_the_other_made(
    stack: Stack, client: httpx.AsyncClient, sori: Sori
) -> None:
    jobs = await asyncio.gather(*(sori.job(token_id=new_token("slow")) for _ in range(8)))
    places = [(job_id, replica) for job_id in jobs for replica in REPLICAS]
    streams = await asyncio.gather(*(heard(client, progress_at(stack, r, j), last_event_id="0") for j, r in places))
    for (job_id, _), messages in zip(places, streams, strict=True):
        assert without_gap_or_repeat(messages, first=1)
        assert messages[-1].state == await sori.state(job_id)
    handled = {replica: stack.log(replica).read_text(encoding="utf-8") for replica in REPLICAS}
    assert all(any(job_id in log for job_id in jobs) for log in handled.values()), "one replica did all the work"


async def test_a_listener_may_come_back_to_the_other_replica(
    stack: Stack, client: httpx.AsyncClient, sori: Sori
) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    messages: list[Block] = []
    while not messages or messages[-1].state["status"] == "processing":
        replica = REPLICAS[len(messages) % 2]
        last_id = messages[-1].id if messages else "0"
        async with listening(client, progress_at(stack, replica, job_id), last_event_id=last_id) as stream:
            messages.append(await anext(stream.messages()))
    assert without_gap_or_repeat(messages, first=1)


async def test_many_listeners_of_one_job_all_hear_the_same(sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    await sori.reached(job_id, 90)
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=None)) as crowd:
        url = sori.progress_url(job_id)
        streams = await asyncio.gather(*(heard(crowd, url, last_event_id="0") for _ in range(60)))
    assert without_gap_or_repeat(streams[0], first=1)
    assert all(messages == streams[0] for messages in streams)


async def test_a_message_comes_when_its_change_happens_and_not_later(
    sori: Sori, stack: Stack, client: httpx.AsyncClient
) -> None:
    token_id = new_token("never-calls-back")
    job_id = await sori.job(token_id=token_id)
    await sori.reached(job_id, 90)
    async with listening(client, sori.progress_url(job_id)) as stream:
        messages = stream.messages()
        assert (await anext(messages)).state["progress"] == 90
        called = time.monotonic()
        await sori.webhook(job_id, {"status": "success", "result": {}})
        assert (await anext(messages)).state["status"] == "completed"
        # Far less than any buffer or poll on the way would take.
        assert time.monotonic() - called < 0.9


async def test_a_waiting_listener_hears_heartbeats(unanswered: Unanswered) -> None:
    beats = [at for at, block in unanswered.heard if block.comments]
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *beats])]
    assert beats
    assert max(gaps) < 20
    assert all(block.data is None for _, block in unanswered.heard if block.comments)


async def test_only_changes_are_streamed(unanswered: Unanswered) -> None:
    messages = [block for _, block in unanswered.heard if block.data is not None]
    assert without_gap_or_repeat(messages)
    seen: list[dict[str, Any]] = [message.state for message in messages]
    assert all(earlier != later for earlier, later in itertools.pairwise(seen))
