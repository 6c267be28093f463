"""A job is purged while an uploader has its recording in memory; the uploader keeps it, and dies before it says so."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from contracts import events
from contracts.job import Job
from local_stack.stack import Stack
from tests.support import bucket
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker, connected
from tests.support.dying_uploader import Deaths
from tests.support.events import Story
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.stacks import running_stack
from tests.support.waiting import until, until_true


@pytest.fixture
def deaths(tmp_path: Path) -> Deaths:
    return Deaths(tmp_path / "deaths")


@pytest.fixture
def stack(deaths: Deaths, analysis_server: AnalysisServer) -> Iterator[Stack]:
    with running_stack({"TARGET_SERVER_URL": analysis_server.url}, deaths.prepare) as running:
        yield running


@pytest.fixture
async def jobs(stack: Stack) -> AsyncIterator[Any]:
    async with AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"], tz_aware=True) as mongodb:
        yield mongodb.get_default_database()["jobs"]


@pytest.fixture
async def broker(stack: Stack) -> AsyncIterator[Broker]:
    async with connected(stack.settings["RABBITMQ_URL"]) as opened:
        yield opened


async def test_what_is_kept_from_memory_after_its_purge_is_purged_again(
    deaths: Deaths, stack: Stack, broker: Broker, jobs: Any, client: httpx.AsyncClient
) -> None:
    upload = Story(str(uuid.uuid4()), new_token()).upload_received()
    job_id = upload.subject
    audio = f"audio/{job_id}.wav"
    sori = Sori(client, stack.url, stack.settings["WEBHOOK_SECRET"])
    async with bucket.opened(stack.settings) as objects, broker.overhearing() as overheard:
        await jobs.insert_one(Job.received(upload, None).model_dump(by_alias=True, exclude={"upload_received"}))
        await objects.put(upload.data.inbox_key, RECORDING)
        deaths.plan(job_id)
        await broker.publish(upload)
        await until_true(lambda: deaths.is_held(job_id), "a recording in hand")
        assert (await sori.client.delete(f"{sori.url}/jobs/{job_id}?purge=true")).status_code == 202

        async def emptied() -> bool:
            analysis = await jobs.database["analyses"].find_one({"_id": job_id})
            return analysis is not None and not await objects.keys(f"inbox/{job_id}")

        await until(emptied, "an empty inbox, and the bridge's mark")
        assert await objects.keys(audio) == set()
        deaths.go_on(job_id)
        await until_true(lambda: not deaths.is_planned(job_id), "the uploader's death")
        # Another one is given the message, finds the recording, and says so.
        await overheard.until(job_id, events.AudioStored)

        async def forgotten() -> bool:
            return not await objects.keys(audio) and await jobs.find_one({"_id": job_id}) is None

        await until(forgotten, "nothing left", limit_seconds=60)
    assert (await sori.result(job_id)).status_code == 404
