"""The analysis server killed with its hands full: after its restart all of it is under way again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.support.analysis_program import Program, Receiver, Store, running, running_receiver, running_store
from tests.support.ports import free_port
from tests.support.recordings import speech

SENTENCES = ("The quick brown fox jumps over the lazy dog.", "Winter is coming.", "I never said that.", "Please call.")
UNDER_WAY_SECONDS = 10.0
MORE_SECONDS = 10.0


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with running_store(tmp_path / "s3") as made:
        yield made


class Crowd:
    """Many recordings that one server is asked about."""

    def __init__(self, store: Store, receiver: Receiver, count: int) -> None:
        self.audio = [store.put(f"audio/{at}.wav", speech(sentence)) for at, sentence in enumerate(SENTENCES)]
        self.receiver = receiver
        self.count = count

    async def ask(self, server: Program, path: str) -> set[str]:
        """Ask for all of them, and return the ids that they were accepted with."""
        hooks = self.receiver.addresses(path, self.count)
        answers = [
            await server.analyse(self.audio[at % len(self.audio)], hook, video_id=str(at))
            for at, hook in enumerate(hooks)
        ]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.json()["job_id"] for answer in answers}

    async def results(self, limit_seconds: float) -> dict[str, Any]:
        """Return what the webhook was told of each recording, once it was told of all of them."""
        results: dict[str, Any] = {}
        async with asyncio.timeout(limit_seconds):
            while len(results) < self.count:
                _, body, _ = await self.receiver.received.get()
                assert body["status"] == "completed", body
                results[body["video_id"]] = body
        return results


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(12, id="12-recordings", marks=pytest.mark.short),
        pytest.param(50, id="50-recordings", marks=[pytest.mark.full, pytest.mark.timeout(300)]),
    ],
)
async def test_a_killed_server_goes_on_with_all_that_it_had_accepted(
    store: Store, receiver: Receiver, tmp_path: Path, count: int
) -> None:
    crowd, port = Crowd(store, receiver, count), str(free_port())
    settings = {"PORT": port, "WORKERS": "2"}

    begun = monotonic()
    async with running(store, tmp_path / "undisturbed", **settings) as server:
        await crowd.ask(server, "/undisturbed")
        expected = await crowd.results(200)
        undisturbed_seconds = monotonic() - begun
        await server.until_nothing_is_kept(store)

    async with running(store, tmp_path / "killed", **settings) as server:
        for worker in server.workers():
            worker.suspend()  # so that none is answered before the kill
        accepted = await crowd.ask(server, "/killed")
        await server.logged("recording-fetched", times=3)
        server.process.kill()
        await asyncio.to_thread(server.process.wait)
    assert receiver.received.empty()
    assert len(store.keys("analysis-server/accepted-")) == count

    begun = monotonic()
    async with running(store, tmp_path / "again", **settings) as server:
        resumed = await server.logged("job-resumed", times=count)
        under_way_seconds = monotonic() - begun
        results = await crowd.results(200)
        seconds = monotonic() - begun
        assert {line["job_id"] for line in resumed} == accepted == {body["job_id"] for body in results.values()}
        assert {video: body["analysis_results"] for video, body in results.items()} == {
            video: body["analysis_results"] for video, body in expected.items()
        }
        await server.until_nothing_is_kept(store)
        assert receiver.received.empty()
    print(
        f"\n{count} recordings: undisturbed {undisturbed_seconds:.1f} s; "
        f"after the kill under way in {under_way_seconds:.1f} s, all results in {seconds:.1f} s"
    )
    assert under_way_seconds <= UNDER_WAY_SECONDS
    assert seconds <= undisturbed_seconds + MORE_SECONDS


@pytest.mark.full
async def test_another_server_takes_over_from_one_that_does_not_come_back(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    crowd = Crowd(store, receiver, 12)
    async with running(store, tmp_path / "other") as other, running(store, tmp_path / "killed") as server:
        (worker,) = server.workers()
        worker.suspend()
        accepted = await crowd.ask(server, "/killed")
        server.process.kill()
        begun = monotonic()
        results = await crowd.results(60)
        print(f"\n12 recordings of a dead server: all results in {monotonic() - begun:.1f} s")
        assert {body["job_id"] for body in results.values()} == accepted
        await other.until_nothing_is_kept(store)
        assert receiver.received.empty()
