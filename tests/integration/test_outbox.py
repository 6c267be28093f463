"""The outbox: a job whose event was never published, as after a crash, reaches its end all the same."""

import asyncio
import uuid
from datetime import timedelta
from typing import Any

from contracts.job import Job
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.waiting import until


async def left_behind(bucket: Bucket, jobs: Any, seed: int) -> str:
    """What a gateway leaves that dies between keeping a job and publishing its event."""
    recording = wav(0.3, seed=seed)
    event = Story(str(uuid.uuid4()), new_token(), recording).upload_received(age=timedelta(minutes=1))
    await bucket.put(event.data.inbox_key, recording)
    await jobs.insert_one(Job.received(event, "recording.wav").model_dump(by_alias=True))
    return event.subject


async def test_what_a_crash_left_unpublished_is_published_and_completes(bucket: Bucket, jobs: Any, sori: Sori) -> None:
    left = await asyncio.gather(*(left_behind(bucket, jobs, seed) for seed in range(31, 35)))
    states = await asyncio.gather(*(sori.ended(job_id) for job_id in left))
    assert [state["status"] for state in states] == ["completed"] * len(left)
    assert [state["result"]["s3_audio_url"] for state in states] == [f"s3://{bucket.name}/audio/{j}.wav" for j in left]
    await bucket.until_inbox_is_empty()


async def test_the_mark_is_gone_once_the_event_is_known_to_be_published(sori: Sori, jobs: Any) -> None:
    job_id = await sori.job()

    async def published() -> bool:
        return "outbox" not in await jobs.find_one({"_id": job_id})

    await until(published, "an empty outbox")
    await sori.ended(job_id)
    assert "outbox" not in await jobs.find_one({"_id": job_id})
