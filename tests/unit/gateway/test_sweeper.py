"""Sweeping the inbox: what a crash left goes when it is old enough, what an unfinished job needs stays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from gateway.sweeper import Sweeper

MAX_AGE = timedelta(milliseconds=20)
LIMIT_SECONDS = 5.0
OLD = datetime(2026, 1, 1, tzinfo=UTC)


class Inbox:
    """The inbox in memory, two keys a page."""

    def __init__(self, objects: dict[str, datetime]) -> None:
        self.objects = dict(objects)
        self.aborted = asyncio.Event()
        self.looks = 0
        self.asked: list[datetime] = []

    async def older_than(self, moment: datetime) -> AsyncIterator[list[str]]:
        self.asked.append(moment)
        keys = [key for key, written in sorted(self.objects.items()) if written < moment]
        for begin in range(0, len(keys), 2):
            yield keys[begin : begin + 2]

    async def remove_all(self, keys: list[str]) -> None:
        for key in keys:
            del self.objects[key]

    async def abort_unfinished(self, prefix: str, moment: datetime) -> int:
        assert (prefix, moment) == ("inbox/", self.asked[-1])
        self.looks += 1
        if self.looks == 2:
            self.aborted.set()
        return 1


class Jobs:
    """Which jobs have not ended; unreachable as often as told. `late` is inserted after the first question."""

    def __init__(self, *unfinished: str, failures: int = 0, late: str | None = None) -> None:
        self._unfinished = set(unfinished)
        self._failures = failures
        self._late = late

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        found = await self._found(job_ids)
        if self._late is not None:
            self._unfinished.add(self._late)
        return found

    async def _found(self, job_ids: list[str]) -> set[str]:
        if self._failures:
            self._failures -= 1
            raise ConnectionError("down")
        return self._unfinished & set(job_ids)


@asynccontextmanager
async def sweeping(inbox: Inbox, jobs: Jobs) -> AsyncIterator[None]:
    sweeper = Sweeper(inbox, jobs, MAX_AGE)
    sweeper.start()
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            await inbox.aborted.wait()
        yield
    finally:
        await sweeper.stop()


async def test_old_objects_go_unless_their_job_still_needs_them() -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    inbox = Inbox({**{f"inbox/{name}": OLD for name in ("a", "b", "c", "d", "e")}, "inbox/young": tomorrow})
    async with sweeping(inbox, Jobs("b", "d")):
        assert set(inbox.objects) == {"inbox/b", "inbox/d", "inbox/young"}


async def test_each_of_several_objects_of_one_job_stays_as_long_as_it() -> None:
    keys = {"inbox/a.0011": OLD, "inbox/a.ffee": OLD, "inbox/b.0011": OLD, "inbox/ab": OLD}
    inbox = Inbox(keys)
    async with sweeping(inbox, Jobs("a")):
        assert set(inbox.objects) == {"inbox/a.0011", "inbox/a.ffee"}


async def test_an_object_whose_job_is_just_being_inserted_stays() -> None:
    inbox = Inbox({"inbox/a": OLD, "inbox/b": OLD})
    async with sweeping(inbox, Jobs(late="a")):
        assert set(inbox.objects) == {"inbox/a"}


async def test_age_counts_back_from_now() -> None:
    inbox = Inbox({})
    before = datetime.now(UTC)
    async with sweeping(inbox, Jobs()):
        assert before - MAX_AGE <= inbox.asked[0] <= datetime.now(UTC) - MAX_AGE


async def test_nothing_goes_while_nobody_can_say_which_jobs_are_unfinished() -> None:
    inbox = Inbox({"inbox/a": OLD, "inbox/b": OLD})
    async with sweeping(inbox, Jobs("a", failures=3)):
        assert set(inbox.objects) == {"inbox/a"}
    assert len(inbox.asked) >= 5


async def test_a_sweeper_that_was_stopped_looks_no_more() -> None:
    inbox = Inbox({})
    async with sweeping(inbox, Jobs()):
        pass
    looks = len(inbox.asked)
    await asyncio.sleep(0)
    assert len(inbox.asked) == looks
