"""A person's export: a ZIP that is made while it is sent, in bounded memory, whatever is removed meanwhile."""

import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zipfile import ZipFile

import pytest

from chassis.errors import AwayError
from contracts.job import Job, Status
from gateway.audio import AudioGoneError, StoredAudio
from gateway.jobs.removals import Ending
from gateway.person import export
from gateway.person.export import exported
from tests.support.gateway_stores import Jobs, OwnedJobs
from tests.unit import stories

OWNER = "user:" + "a" * 32
MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


class Store:
    """S3: recordings of `size` bytes each, but those of the jobs that are `gone`, or are gone only when `opened`."""

    def __init__(self, size: int = 10) -> None:
        self.size, self.open = size, 0
        self.gone: set[str] = set()
        self.gone_when_opened: set[str] = set()
        self.error: Exception | None = None

    async def find_audio(self, job_id: str) -> StoredAudio | None:
        audio = StoredAudio(f"audio/{job_id}.wav", self.size, "audio/wav", '"1"')
        return None if job_id in self.gone else audio

    @asynccontextmanager
    async def read(self, audio: StoredAudio, first: int, last: int) -> AsyncIterator[AsyncIterator[bytes]]:
        if any(job_id in audio.key for job_id in self.gone_when_opened):
            raise AudioGoneError
        self.open += 1
        try:
            yield self._chunks(last + 1 - first)
        finally:
            self.open -= 1

    async def _chunks(self, left: int) -> AsyncIterator[bytes]:
        while left > 0:
            yield b"s" * min(left, 65536)
            left -= 65536
            if self.error:
                raise self.error


def job(number: int, owner: str = OWNER, result: str | None = '{"overall_score":1}') -> Job:
    made = Job.received(stories.received(f"00000000-0000-4000-8000-{number:012}"), "my voice.wav")
    view = made.view.model_copy(
        update={"status": Status.COMPLETED, "s3_url": f"s3://secret-bucket/audio/{made.job_id}.wav"}
    )
    update = {"owner": owner, "view": view, "result_json": result, "created_at": MOMENT + timedelta(seconds=number)}
    return made.model_copy(update=update)


async def archive(jobs: Jobs, store: Store, owner: str = OWNER) -> ZipFile:
    content = b"".join([chunk async for chunk in exported(OwnedJobs(jobs), store, owner, "en")])
    made = ZipFile(io.BytesIO(content))
    assert made.testzip() is None
    return made


def read(made: ZipFile, name: str) -> Any:
    return json.loads(made.read(name))


async def test_it_has_the_jobs_their_results_and_their_sound_and_nothing_of_anybody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "JOBS_PER_PAGE", 2)
    mine = [job(number) for number in range(5)]
    made = await archive(Jobs(*mine, job(9, "user:" + "b" * 32)), Store())
    listed = read(made, "jobs.json")["jobs"]
    assert [one["job_id"] for one in listed] == [one.job_id for one in reversed(mine)]
    assert all(one["filename"] == "my voice.wav" and one["history"] for one in listed)
    assert all("result" not in one and "secret-bucket" not in json.dumps(one) for one in listed)
    expected = {"jobs.json"}
    for one in mine:
        expected |= {f"results/{one.job_id}.json", f"audio/{one.job_id}.wav"}
        assert made.read(f"audio/{one.job_id}.wav") == b"s" * 10
        assert read(made, f"results/{one.job_id}.json") == {"overall_score": 1}
    assert set(made.namelist()) == expected
    assert all(info.external_attr >> 16 == 0o600 for info in made.infolist())


async def test_somebody_without_jobs_gets_an_empty_list() -> None:
    made = await archive(Jobs(), Store())
    assert (made.namelist(), read(made, "jobs.json")) == (["jobs.json"], {"jobs": []})


async def test_what_is_removed_meanwhile_is_named_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "JOBS_PER_PAGE", 1)
    never = job(4).model_copy(update={"view": stories.new_job().view, "result_json": None})
    jobs, store = Jobs(*(job(number) for number in range(4)), never), Store()
    store.gone, store.gone_when_opened = {job(0).job_id, never.job_id}, {job(1).job_id}
    parts: list[bytes] = []
    purged = False
    async for chunk in exported(OwnedJobs(jobs), store, OWNER, "en"):
        if not parts:
            await jobs.insert(job(7))  # it came meanwhile
        parts.append(chunk)
        if not purged and b"results/" in chunk:
            purged = True
            await jobs.ask_end(Ending.PURGE, [job(2).job_id], MOMENT)
    made = ZipFile(io.BytesIO(b"".join(parts)))
    assert made.testzip() is None
    missing = read(made, "missing.json")
    assert sorted(missing["audio_removed"]) == [job(0).job_id, job(1).job_id]
    assert missing["job_removed"] == [job(2).job_id]
    assert {name for name in made.namelist() if name.startswith("audio/")} == {f"audio/{job(3).job_id}.wav"}


async def test_its_memory_does_not_grow_with_the_sound() -> None:
    jobs, store = Jobs(*(job(number) for number in range(3))), Store(64 * 1024 * 1024)
    tracemalloc.start()
    sent = 0
    async for chunk in exported(OwnedJobs(jobs), store, OWNER, "en"):
        sent += len(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sent > 3 * store.size
    assert peak < 8 * 1024 * 1024


async def test_a_reader_who_goes_away_lets_go_of_the_sound() -> None:
    store = Store(1024 * 1024)
    async with aclosing(exported(OwnedJobs(Jobs(job(1))), store, OWNER, "en")) as chunks:
        async for _ in chunks:
            if store.open:
                break
        assert store.open == 1
    assert store.open == 0


async def test_an_archive_that_cannot_be_finished_is_broken_off() -> None:
    store = Store(1024 * 1024)
    store.error = AwayError("S3", "down")
    with pytest.raises(AwayError):
        await archive(Jobs(job(1)), store)
    assert store.open == 0
