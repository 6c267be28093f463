"""Sweeping the inbox: what a crash left goes when it is old enough, what an unfinished job needs stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from contracts.job import Job
from gateway.uploads.inbox_sweeper import InboxSweeper
from tests.support.gateway_stores import Bucket, Jobs
from tests.support.waiting import until_true
from tests.unit import stories

MAX_AGE = timedelta(milliseconds=20)
OLD = datetime(2026, 1, 1, tzinfo=UTC)


def unfinished(*job_ids: str) -> list[Job]:
    return [stories.new_job().model_copy(update={"job_id": job_id}) for job_id in job_ids]


def filled(**written: datetime) -> Bucket:
    """A bucket with such objects in its inbox, by their job's id and what follows it."""
    bucket = Bucket()
    bucket.written = {f"inbox/{name.replace('_', '.')}": at for name, at in written.items()}
    bucket.objects = dict.fromkeys(bucket.written, b"")
    return bucket


@asynccontextmanager
async def sweeping(bucket: Bucket, jobs: Jobs) -> AsyncIterator[None]:
    sweeper = InboxSweeper(bucket, jobs, MAX_AGE)
    sweeper.start()
    try:
        await until_true(lambda: len(bucket.aborted) >= 2, "two looks to their end")
        yield
    finally:
        await sweeper.stop()
    assert {prefix for prefix, _ in bucket.asked} == {"inbox/"}
    assert set(bucket.aborted) <= set(bucket.asked), "uploads of the same age are aborted"


async def test_old_objects_go_unless_their_job_still_needs_them() -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    bucket = filled(a=OLD, b=OLD, c=OLD, d=OLD, e=OLD, young=tomorrow)
    async with sweeping(bucket, Jobs(*unfinished("b", "d"))):
        assert set(bucket.objects) == {"inbox/b", "inbox/d", "inbox/young"}


async def test_each_of_several_objects_of_one_job_stays_as_long_as_it() -> None:
    bucket = filled(a_0011=OLD, a_ffee=OLD, b_0011=OLD, ab=OLD)
    async with sweeping(bucket, Jobs(*unfinished("a"))):
        assert set(bucket.objects) == {"inbox/a.0011", "inbox/a.ffee"}


async def test_an_object_whose_job_is_just_being_inserted_stays() -> None:
    class InsertedLate(Jobs):
        async def unfinished(self, job_ids: list[str]) -> set[str]:
            found = await super().unfinished(job_ids)
            self.kept |= {job.job_id: job for job in unfinished("a")}
            return found

    bucket = filled(a=OLD, b=OLD)
    async with sweeping(bucket, InsertedLate()):
        assert set(bucket.objects) == {"inbox/a"}


async def test_age_counts_back_from_now() -> None:
    bucket = Bucket()
    before = datetime.now(UTC)
    async with sweeping(bucket, Jobs()):
        assert before - MAX_AGE <= bucket.asked[0][1] <= datetime.now(UTC) - MAX_AGE


async def test_nothing_goes_while_nobody_can_say_which_jobs_are_unfinished() -> None:
    bucket = filled(a=OLD, b=OLD)
    async with sweeping(bucket, Jobs(*unfinished("a"), failures=3)):
        assert set(bucket.objects) == {"inbox/a"}
    assert len(bucket.asked) >= 5


async def test_a_sweeper_that_was_stopped_looks_no_more() -> None:
    bucket = Bucket()
    async with sweeping(bucket, Jobs()):
        pass
    looks = len(bucket.asked)
    await asyncio.sleep(0)
    assert len(bucket.asked) == looks
