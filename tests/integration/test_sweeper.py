"""The inbox is swept of what crashes left there, and of nothing else."""

import secrets
import uuid
from datetime import timedelta
from typing import Any

from contracts.job import Job
from tests.conftest import INBOX_MAX_AGE_SECONDS
from tests.support.broker import Broker
from tests.support.bucket import Bucket
from tests.support.events import Story
from tests.support.sori import RECORDING, Sori
from tests.support.waiting import until

LONG_AGO = timedelta(hours=1)


async def test_old_leftovers_are_swept_and_what_is_new_or_needed_stays(
    bucket: Bucket, jobs: Any, sori: Sori, broker: Broker
) -> None:
    finished = (await sori.completed())["job_id"]
    needed = Story(str(uuid.uuid4())).upload_received()
    await jobs.insert_one(Job.received(needed, None).model_dump(by_alias=True, exclude={"upload_received"}))
    nobodys, fresh = (str(uuid.uuid4()) for _ in range(2))
    await bucket.put(f"inbox/{fresh}", RECORDING)
    await bucket.put(needed.data.inbox_key, RECORDING, age=LONG_AGO)
    left = {f"inbox/{nobodys}", f"inbox/{finished}", "inbox/no-job-at-all"}
    for key in left:
        await bucket.put(key, RECORDING, age=LONG_AGO)

    async def swept() -> bool:
        return not left & await bucket.keys("inbox/")

    await until(swept, "a swept inbox")
    assert await bucket.keys("inbox/") >= {f"inbox/{fresh}", needed.data.inbox_key}
    await broker.publish(needed)
    assert (await sori.ended(needed.subject))["status"] == "completed"
    await bucket.clear_inbox()


async def test_an_upload_that_a_crash_left_open_is_aborted(bucket: Bucket) -> None:
    keys = {f"inbox/{uuid.uuid4()}", f"references/7/{secrets.token_hex(8)}"}
    for key in keys:
        await bucket.open_upload(key)
    assert keys <= await bucket.open_uploads()

    async def aborted() -> bool:
        return not keys & await bucket.open_uploads()

    await until(aborted, "the abort", limit_seconds=2 * INBOX_MAX_AGE_SECONDS)
