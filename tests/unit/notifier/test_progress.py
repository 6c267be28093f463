"""One writer of job documents: every event is applied once, by whoever comes first, and told as often as it comes."""

import asyncio
import json
from datetime import timedelta

import pytest

from contracts import events
from contracts.events import Event, JobProgressed
from contracts.failures import FailureCode
from contracts.job import Status
from notifier.errors import ContendedError, TooSoonError
from notifier.progress import ATTEMPTS, BETWEEN_PROGRESS, Progress
from tests.support.notifier_jobs import Jobs
from tests.unit import stories


async def record(jobs: Jobs, *happened: Event) -> list[JobProgressed | None]:
    return [await Progress(jobs).record(event) for event in happened]


async def test_each_step_is_told_with_its_revision() -> None:
    jobs = Jobs(stories.new_job())
    told = await record(jobs, *stories.COURSES["completed"])
    assert [one and (one.data.revision, one.data.progress) for one in told] == [(2, 40), (3, 70), (4, 90), (5, 100)]
    last = told[-1]
    assert last is not None
    assert (json.loads(last.data.result_json or ""), last.data.s3_url) == (stories.RESULT, stories.S3_URL)
    assert (last.subject, last.trace_id) == (stories.JOB_ID, stories.TRACE_ID)


async def test_what_nobody_can_see_is_kept_but_not_told() -> None:
    jobs = Jobs(stories.new_job())
    told = await record(jobs, stories.completed(), stories.stored())
    assert told[1] is None
    assert jobs.jobs[stories.JOB_ID].audio == stories.AUDIO


async def test_a_repeat_is_not_applied_but_told_again() -> None:
    """A crash may have come between the two."""
    jobs = Jobs(stories.new_job())
    first, *_, again = await record(jobs, stories.received(), stories.stored(), stories.received())
    assert first is not None
    assert again is not None
    assert (again.id, again.data) == (first.id, first.data)
    assert jobs.updates == 2
    assert jobs.jobs[stories.JOB_ID].revision == 3


async def test_an_event_for_an_unknown_job_makes_no_job() -> None:
    jobs = Jobs()
    assert await record(jobs, stories.completed()) == [None]
    assert jobs.jobs == {}


@pytest.mark.parametrize("end", stories.OUTSIDE_ENDS)
async def test_an_end_from_outside_is_told_once_and_what_comes_later_is_not(end: Event) -> None:
    jobs = Jobs(stories.new_job())
    _, told, later = await record(jobs, stories.received(), end, stories.completed())
    assert told is not None
    assert told.data.status == ("failed" if end.type == events.JobExpired.TYPE else "cancelled")
    assert later is None


async def test_a_purged_job_is_forgotten_and_nothing_brings_it_back() -> None:
    jobs = Jobs(stories.new_job())
    progress = Progress(jobs)
    told = await progress.record(stories.purged())
    assert told is not None
    assert told.data.status == "cancelled"
    for event in (stories.audio_removed(), stories.analysis_removed()):
        await progress.forget_if_removed(stories.JOB_ID)
        assert jobs.jobs.keys() == {stories.JOB_ID}, "something of it may still be there"
        assert await progress.record(event) is None
    await progress.forget_if_removed(stories.JOB_ID)
    assert jobs.jobs == {}
    # The message may come again, and so may what was under way.
    assert await record(jobs, stories.purged(), stories.stored(), stories.completed()) == [None, None, None]
    await progress.forget_if_removed(stories.JOB_ID)
    assert jobs.jobs == {}


async def test_what_was_removed_ends_a_job_whose_purge_was_never_heard_of() -> None:
    _, told, later = await record(
        Jobs(stories.new_job()), stories.received(), stories.audio_removed(), stories.analysis_removed()
    )
    assert told is not None
    assert told.data.status == "cancelled"
    assert later is None


async def test_a_job_that_is_forgotten_while_an_event_is_applied_stays_so() -> None:
    removed = {"removed": [events.AudioRemoved.TYPE, events.AnalysisRemoved.TYPE]}
    jobs = Jobs(stories.new_job().model_copy(update=removed))
    await asyncio.gather(Progress(jobs).record(stories.completed()), Progress(jobs).forget_if_removed(stories.JOB_ID))
    assert jobs.jobs == {}


async def test_a_conflict_is_tried_again() -> None:
    jobs = Jobs(stories.new_job(), conflicts=ATTEMPTS - 1)
    (told,) = await record(jobs, stories.received())
    assert told is not None
    assert jobs.jobs[stories.JOB_ID].view.progress == 40


async def test_a_job_that_changes_all_the_time_is_left_for_later() -> None:
    with pytest.raises(ContendedError):
        await record(Jobs(stories.new_job(), conflicts=ATTEMPTS), stories.received())


async def test_replicas_that_apply_everything_at_once_agree() -> None:
    jobs = Jobs(stories.new_job())
    replicas = [Progress(jobs) for _ in range(3)]
    happened = stories.COURSES["asked again, then completed"]
    told = await asyncio.gather(*(replica.record(event) for replica in replicas for event in reversed(happened)))
    assert jobs.jobs[stories.JOB_ID].view.status == Status.COMPLETED
    assert len(jobs.jobs[stories.JOB_ID].history) == 1 + len({event.id for event in happened})
    # Whoever tells of a revision tells the same of it.
    by_revision: dict[int, set[str]] = {}
    for one in filter(None, told):
        by_revision.setdefault(one.data.revision, set()).add(one.data.model_dump_json())
    assert {len(said) for said in by_revision.values()} == {1}
    assert max(by_revision) == jobs.jobs[stories.JOB_ID].revision


async def test_a_failure_is_told_with_its_code_and_no_result() -> None:
    (told,) = await record(Jobs(stories.new_job()), stories.failed(FailureCode.RESULT_TOO_LARGE))
    assert told is not None
    assert (told.data.status, told.data.error, told.data.result_json) == ("failed", FailureCode.RESULT_TOO_LARGE, None)
    assert isinstance(events.decode(told.encode()), JobProgressed)


async def test_the_progress_of_an_analysis_is_passed_on_at_most_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of who passes it on: what waited in a queue was made long ago."""
    now = stories.BEGAN + timedelta(hours=1)
    monkeypatch.setattr(events, "now", lambda: now)
    jobs = Jobs(stories.new_job())
    replicas = [Progress(jobs), Progress(jobs)]
    await record(jobs, *stories.COURSES["begun"])
    first = await replicas[0].record(stories.progressed(20))
    assert first is not None
    assert (first.data.progress, first.data.updated_at) == (91, now)
    with pytest.raises(TooSoonError) as refused:
        await replicas[1].record(stories.progressed(60))
    assert 1.0 <= refused.value.retry_after == BETWEEN_PROGRESS.total_seconds()
    assert await replicas[1].record(stories.progressed(21)) is None, "nobody sees it, so it need not wait"
    now += timedelta(seconds=refused.value.retry_after)
    later = await replicas[1].record(stories.progressed(60))
    assert later is not None
    assert later.data.progress == 95
    assert await replicas[0].record(stories.progressed(40)) is None
    again = await replicas[0].record(stories.progressed(60))
    assert again is not None
    assert (again.id, again.data) == (later.id, later.data)


async def test_nothing_but_progress_waits_for_its_turn() -> None:
    jobs = Jobs(stories.new_job())
    told = await record(jobs, *stories.COURSES["begun"], stories.progressed(20), stories.completed())
    assert [one and one.data.progress for one in told] == [40, 70, 90, 91, 100]
    assert await record(jobs, stories.progressed(60)) == [None]


async def test_replicas_that_are_told_of_progress_at_once_pass_one_on() -> None:
    jobs = Jobs(stories.new_job())
    await record(jobs, *stories.COURSES["begun"])
    progressed = [stories.progressed(percent) for percent in range(10, 100, 20)]
    told = await asyncio.gather(*(Progress(jobs).record(event) for event in progressed), return_exceptions=True)
    assert len([one for one in told if isinstance(one, JobProgressed)]) == 1
    assert {type(one) for one in told} <= {JobProgressed, TooSoonError, type(None)}
