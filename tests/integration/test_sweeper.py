"""What a crash leaves in the inbox is removed by its age, on the real S3 and MongoDB."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from contracts import events
from contracts.job import Job
from gateway.settings import Settings
from gateway.storage import Inbox
from gateway.store import Jobs
from gateway.sweeper import Sweeper
from local_stack.stack import Stack
from tests.support.bucket import Bucket
from tests.support.waiting import until


def unfinished_job(job_id: str) -> Job:
    """A job that still waits for its recording to be looked at, and that no relay will take up."""
    data = events.UploadReceivedData(token_id="t", inbox_key=f"inbox/{job_id}", size_bytes=1)
    event = events.UploadReceived.new(job_id, data, source="gateway", traceparent=events.continued_trace(None))
    return Job.received(event, None).model_copy(update={"outbox": None})


async def test_leftovers_of_a_crash_are_swept_and_what_a_job_needs_is_kept(
    stack: Stack, bucket: Bucket, jobs: Any
) -> None:
    own = {name.lower(): value for name, value in stack.settings.items() if name.lower() in Settings.model_fields}
    settings = Settings.model_validate(own)
    needed, left = str(uuid4()), str(uuid4())
    await jobs.insert_one(unfinished_job(needed).model_dump(by_alias=True))
    for job_id in (needed, left):
        await bucket.put(f"inbox/{job_id}", b"x")
    await bucket.begin_upload(f"inbox/{uuid4()}")
    written = datetime.now(UTC)
    store = Jobs(stack.settings["MONGODB_URL"])
    async with Inbox(settings) as inbox:
        sweeper = Sweeper(inbox, store, timedelta(seconds=2))
        sweeper.start()
        try:

            async def swept() -> bool:
                return f"inbox/{left}" not in await bucket.keys("inbox/") and not await bucket.open_uploads()

            await until(swept, "the leftovers to be gone")
            assert datetime.now(UTC) - written >= timedelta(seconds=1), "what is young may still be in use"
            assert f"inbox/{needed}" in await bucket.keys("inbox/")
        finally:
            await sweeper.stop()
            await bucket.clear_inbox()
            await jobs.delete_one({"_id": needed})
            store.close()
