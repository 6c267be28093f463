"""The rule that events change a job by: whatever order they come in and however often, it ends the same."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise, permutations
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import api, events
from contracts.events import Event
from contracts.failures import FailureCode
from contracts.job import MAX_IGNORED_CALLS, Job, Stage, Status, apply, changed, is_terminal, progressed, views_since
from tests.unit import stories
from tests.unit.stories import COURSES, HOLDS, OUTSIDE_ENDS

Arrivals = tuple[Event, ...]


OWN_ENDS = (events.AnalysisCompleted, events.AnalysisFailed, events.UploadRejected)
ENDS_FROM_OUTSIDE = (
    events.JobCancelled,
    events.JobPurged,
    events.AudioRemoved,
    events.AnalysisRemoved,
    events.JobExpired,
)
ENDING = [name for name in COURSES if name != "begun"]


@st.composite
def courses(draw: st.DrawFn, names: Sequence[str] = tuple(COURSES)) -> Arrivals:
    """All that happened to one job, with any dead letters and what was done about them, in the order it happened."""
    course = COURSES[draw(st.sampled_from(names))]
    asides = (stories.webhook_ignored(), *HOLDS, *stories.RESUMES, *stories.HOLDS_AGAIN)
    if any(isinstance(event, events.AudioStored) for event in course):
        asides = (stories.delayed(), *asides)
    joining = draw(st.lists(st.sampled_from(asides), unique_by=lambda event: event.id, max_size=4))
    had = {event.id for event in course}
    return (*course, *(event for event in joining if event.id not in had))


@st.composite
def arrivals(draw: st.DrawFn, names: Sequence[str] = tuple(COURSES)) -> tuple[Arrivals, Arrivals]:
    """What happened, and how it arrived: everything at least once, in any order, some or all of it again and again."""
    return _arrived(draw, draw(courses(names)))


@st.composite
def ended_from_outside(draw: st.DrawFn) -> tuple[Arrivals, Arrivals]:
    """The same, when somebody or something has ended the job besides: once or in several ways."""
    ends = draw(st.lists(st.sampled_from(OUTSIDE_ENDS), unique_by=lambda event: event.id, min_size=1))
    return _arrived(draw, (*draw(courses()), *ends))


def _arrived(draw: st.DrawFn, course: Arrivals) -> tuple[Arrivals, Arrivals]:
    repeats = draw(st.just(course) | st.lists(st.sampled_from(course), max_size=4))
    return course, tuple(draw(st.permutations([*course, *repeats])))


def after(job: Job, events_in_order: Iterable[Event]) -> Job:
    for event in events_in_order:
        change = apply(job, event)
        job = job if change is None else changed(job, change)
    return job


def steps(arrived: Sequence[Event]) -> list[Job]:
    """The job as it stood at first and after each arrival."""
    job = stories.new_job()
    return [job, *(job := after(job, [event]) for event in arrived)]


def first_end(arrived: Sequence[Event]) -> Event | None:
    return next((event for event in arrived if isinstance(event, OWN_ENDS + ENDS_FROM_OUTSIDE)), None)


def facts(job: Job) -> dict[str, Any]:
    """All that holds however the job ended, and must not depend on the order of arrival."""
    history = sorted(entry.event_id for entry in job.history)
    return {
        "audio": job.audio,
        "held": job.held,
        "resumed": set(job.resumed),
        "delayed": job.delayed,
        "analysis_deadline": job.analysis_deadline,
        "removed": set(job.removed),
        "history": history,
    }


def seen(job: Job, revision: int | None = None) -> dict[str, Any]:
    """What a listener sees, without what counts or dates it."""
    told = progressed(job, revision or job.revision, job.view).model_dump()
    return {name: value for name, value in told.items() if name not in {"revision", "updated_at"}}


def ending(job: Job) -> dict[str, Any]:
    """All that must not depend on the order of arrival, but for the ends from outside."""
    return {**seen(job), **facts(job)}


@given(arrivals())
def test_the_end_depends_neither_on_order_nor_on_repeats(told: tuple[Arrivals, Arrivals]) -> None:
    course, arrived = told
    assert ending(after(stories.new_job(), arrived)) == ending(after(stories.new_job(), course))


@pytest.mark.parametrize("name", ["failed", "refused", "rejected", "timed out"])
def test_a_failure_that_overtakes_everything_ends_like_one_in_order(name: str) -> None:
    course = COURSES[name]
    assert ending(after(stories.new_job(), reversed(course))) == ending(after(stories.new_job(), course))


@given(ended_from_outside())
def test_of_an_end_from_outside_and_the_jobs_own_the_first_stands_and_all_else_ends_alike(
    told: tuple[Arrivals, Arrivals],
) -> None:
    course, arrived = told
    job = after(stories.new_job(), arrived)
    assert facts(job) == facts(after(stories.new_job(), course))
    end = first_end(arrived)
    assert end is not None
    before = after(stories.new_job(), arrived[: arrived.index(end)])
    assert not is_terminal(before.view.status)
    assert seen(job) == seen(after(before, [end]))


@pytest.mark.parametrize("end", [None, *OUTSIDE_ENDS], ids=lambda end: end and f"{end.type} {end.time:%S}")
@pytest.mark.parametrize("name", [name for name in COURSES if len(COURSES[name]) <= 4])
def test_every_order_there_is_ends_alike(name: str, end: Event | None) -> None:
    course = (*COURSES[name], *(() if end is None else (end,)))
    in_order = after(stories.new_job(), course)
    for arrived in permutations(course):
        jobs = steps([event for event in arrived for _ in range(2)])
        assert facts(jobs[-1]) == facts(in_order)
        assert all(before.view.progress <= now.view.progress for before, now in pairwise(jobs))
        if end is None or first_end(arrived) != end:
            without = [event for event in arrived if event is not end]
            assert seen(jobs[-1]) == seen(after(stories.new_job(), without))
        else:
            assert jobs[-1].view.status == (Status.FAILED if isinstance(end, events.JobExpired) else Status.CANCELLED)


@given(arrivals() | ended_from_outside())
def test_progress_never_falls(told: tuple[Arrivals, Arrivals]) -> None:
    progress = [job.view.progress for job in steps(told[1])]
    assert progress == sorted(progress)


@given(arrivals(ENDING) | ended_from_outside())
def test_a_terminal_state_is_final_for_a_listener(told: tuple[Arrivals, Arrivals]) -> None:
    jobs = steps(told[1])
    end = next(job for job in jobs if is_terminal(job.view.status))
    later = jobs[jobs.index(end) :]
    assert {job.revision for job in later} == {end.revision}
    assert [job.view for job in later] == [end.view] * len(later)
    assert [job.result_json for job in later] == [end.result_json] * len(later)


@given(arrivals() | ended_from_outside())
def test_the_revision_rises_by_one_with_each_change_that_a_listener_can_see_and_only_then(
    told: tuple[Arrivals, Arrivals],
) -> None:
    jobs = steps(told[1])
    for before, now in pairwise(jobs):
        assert now.revision - before.revision == (seen(now) != seen(before))


@given(arrivals() | ended_from_outside())
def test_a_change_says_whether_a_listener_can_see_it(told: tuple[Arrivals, Arrivals]) -> None:
    job = stories.new_job()
    for event in told[1]:
        change = apply(job, event)
        if change is None:
            continue
        assert (change.entry.view is not None) == (change.revision > job.revision)
        job = changed(job, change)


@given(arrivals() | ended_from_outside())
def test_every_event_is_in_the_history_once(told: tuple[Arrivals, Arrivals]) -> None:
    course, arrived = told
    history = [entry.event_id for entry in after(stories.new_job(), arrived).history[1:]]
    assert sorted(history) == sorted({event.id for event in course})


@given(arrivals() | ended_from_outside(), st.data())
def test_a_listener_who_comes_back_gets_each_state_once_and_misses_none(
    told: tuple[Arrivals, Arrivals], data: st.DataObject
) -> None:
    jobs = steps(told[1])
    last = jobs[-1]
    had = data.draw(st.integers(0, last.revision))
    missed = views_since(last, had)
    assert [revision for revision, _ in missed] == list(range(had + 1, last.revision + 1))
    by_revision = {job.revision: job.view for job in reversed(jobs)}
    assert missed == [(revision, by_revision[revision]) for revision, _ in missed]


@given(arrivals() | ended_from_outside(), st.data())
def test_two_listeners_who_joined_at_different_moments_hear_the_same(
    told: tuple[Arrivals, Arrivals], data: st.DataObject
) -> None:
    last = steps(told[1])[-1]
    early, late = sorted(data.draw(st.tuples(*[st.integers(0, last.revision)] * 2)))
    assert views_since(last, early)[late - early :] == views_since(last, late)


def test_a_listener_from_the_future_gets_nothing() -> None:
    assert views_since(after(stories.new_job(), COURSES["completed"]), 99) == []


@pytest.mark.parametrize("name", ["completed", "answered from the cache", "failed", "timed out"])
def test_a_late_audio_stored_is_kept_but_not_seen(name: str) -> None:
    others = [event for event in COURSES[name] if not isinstance(event, events.AudioStored)]
    ended = after(stories.new_job(), others)
    late = after(ended, [stories.stored()])
    assert (ended.audio, late.audio) == (None, stories.AUDIO)
    assert (late.revision, late.view, late.result_json) == (ended.revision, ended.view, ended.result_json)
    assert ended.view.s3_url == stories.S3_URL, "the end brought the address with it"


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        ((), (Status.PROCESSING, Stage.RECEIVED, 10, "업로드 시작")),
        (("received",), (Status.PROCESSING, Stage.STORING, 40, "S3 업로드 중...")),
        (("received", "stored"), (Status.PROCESSING, Stage.REQUESTING, 70, "분석 서버 요청 중...")),
        (("received", "stored", "requested"), (Status.PROCESSING, Stage.WAITING, 90, "분석 중... 결과 대기")),
        (("received", "stored", "requested", "completed"), (Status.COMPLETED, Stage.DONE, 100, "분석 완료")),
        (("requested",), (Status.PROCESSING, Stage.WAITING, 90, "분석 중... 결과 대기")),
        (("requested", "received"), (Status.PROCESSING, Stage.WAITING, 90, "분석 중... 결과 대기")),
        (("completed", "requested"), (Status.COMPLETED, Stage.DONE, 100, "분석 완료")),
    ],
)
def test_progress_and_messages_are_those_of_the_seed(
    happened: tuple[str, ...], expected: tuple[Status, Stage, int, str]
) -> None:
    view = after(stories.new_job(), [getattr(stories, name)() for name in happened]).view
    assert (view.status, view.stage, view.progress, view.message) == expected


@pytest.mark.parametrize("code", FailureCode)
def test_a_failure_has_its_code_and_no_result(code: FailureCode) -> None:
    job = after(stories.new_job(), [stories.received(), stories.stored(), stories.requested(), stories.failed(code)])
    told = progressed(job, job.revision, job.view)
    assert (told.status, told.stage, told.error, told.result_json) == (Status.FAILED, Stage.DONE, code, None)
    assert job.view.progress < 100


@pytest.mark.parametrize(
    "ends",
    [
        (stories.completed(), stories.failed(FailureCode.ANALYSIS_FAILED)),
        (stories.failed(FailureCode.ANALYSIS_TIMED_OUT), stories.completed()),
        (stories.rejected(), stories.completed()),
    ],
)
def test_of_two_ends_the_first_stands(ends: Arrivals) -> None:
    """The services let only one be published; should they fail in that, a listener is still told of one end alone."""
    first = after(stories.new_job(), ends[:1])
    both = after(first, ends[1:])
    assert seen(both) == seen(first)
    assert (both.revision, both.result_json) == (first.revision, first.result_json)


@pytest.mark.parametrize(
    ("before", "lost", "stage"),
    [
        ((), events.UploadReceived, Stage.HELD),
        ((stories.received(),), events.UploadReceived, Stage.HELD),
        ((stories.received(), stories.stored()), events.UploadReceived, Stage.REQUESTING),
        ((stories.received(), stories.stored()), events.AudioStored, Stage.HELD),
        ((stories.received(), stories.stored(), stories.requested()), events.AudioStored, Stage.WAITING),
        ((stories.received(), stories.stored(), stories.requested()), events.AnalysisCompleted, Stage.HELD),
        ((stories.received(),), events.AnalysisFailed, Stage.HELD),
    ],
)
def test_a_dead_letter_holds_a_job_that_has_not_gone_past_it(before: Arrivals, lost: type[Event], stage: Stage) -> None:
    job = after(stories.new_job(), [*before, stories.held("any.queue", lost)])
    assert (job.view.stage, job.view.status) == (stage, Status.PROCESSING)


def test_a_replay_moves_a_held_job_on() -> None:
    held = after(stories.new_job(), [stories.received(), stories.held("q", events.UploadReceived)])
    assert (held.view.stage, held.view.progress) == (Stage.HELD, 40)
    moved = after(held, [stories.stored()])
    assert (moved.view.stage, moved.view.progress) == (Stage.REQUESTING, 70)
    assert after(moved, [stories.completed()]).view.status == Status.COMPLETED


def test_a_hold_that_is_resumed_holds_no_longer() -> None:
    begun = after(stories.new_job(), [stories.received()])
    held = after(begun, [stories.HOLDS[0]])
    assert held.view.stage == Stage.HELD
    resumed = after(held, [stories.RESUMES[0]])
    assert seen(resumed) == seen(begun)
    assert resumed.revision == held.revision + 1, "a listener sees it move on"


def test_of_two_holds_both_must_be_resumed() -> None:
    hold, other = stories.HOLDS[1], stories.HOLDS[2]
    held = after(stories.new_job(), [stories.received(), stories.stored(), hold, other])
    still = after(held, [stories.resumed(hold)])
    assert (still.view.stage, still.revision) == (Stage.HELD, held.revision)
    assert after(still, [stories.resumed(other)]).view.stage == Stage.REQUESTING


def test_a_second_hold_after_a_resume_holds_again_until_it_is_resumed_too() -> None:
    again = stories.HOLDS_AGAIN[0]
    course = [stories.received(), stories.stored(), stories.HOLDS[1], stories.RESUMES[1], again]
    held = after(stories.new_job(), course)
    assert held.view.stage == Stage.HELD
    assert after(held, [stories.resumed(again)]).view.stage == Stage.REQUESTING


def test_a_resume_that_overtakes_its_hold_leaves_the_job_unheld() -> None:
    job = after(stories.new_job(), [stories.received(), stories.RESUMES[0], stories.HOLDS[0]])
    assert job.view.stage == Stage.STORING


def test_a_job_whose_analysis_server_is_away_says_that_it_waits_for_it() -> None:
    job = after(stories.new_job(), [stories.received(), stories.stored(), stories.delayed()])
    assert (job.view.stage, job.view.progress, job.view.message) == (Stage.WAITING, 70, "분석 서버 대기 중...")
    asked = after(job, [stories.requested()])
    assert (asked.view.progress, asked.view.message) == (90, "분석 중... 결과 대기")


@pytest.mark.parametrize("end", OUTSIDE_ENDS)
def test_an_end_from_outside_leaves_progress_where_it_was(end: Event) -> None:
    job = after(stories.new_job(), [stories.received(), stories.stored(), end, stories.completed()])
    assert (job.view.stage, job.view.progress, job.result_json) == (Stage.DONE, 70, None)
    assert job.view.error == (end.data.code if isinstance(end, events.JobExpired) else None)


@pytest.mark.parametrize("end", OUTSIDE_ENDS)
def test_a_completion_that_was_faster_than_an_end_from_outside_stands(end: Event) -> None:
    course = COURSES["completed"]
    job = after(stories.new_job(), [*course, end])
    assert (job.view.status, job.view.progress) == (Status.COMPLETED, 100)
    assert job.history[-1].event_id == end.id
    assert job.history[-1].revision is None


@example({"no": None, "deep": {"list": [None, {"x": None}]}, "": ""})
@given(stories.JSON_OBJECTS)
def test_a_result_reaches_the_listener_as_it_came(result: dict[str, Any]) -> None:
    event = stories.completed(result or {"empty": None})
    job = after(stories.new_job(), [events.decode(event.encode())])
    told = stories.made(events.JobProgressed, progressed(job, job.revision, job.view))
    heard = events.decode(told.encode())
    assert isinstance(heard, events.JobProgressed)
    state = json.loads(api.state_json(job.job_id, heard.data, "en"))
    assert state["result"] == (result or {"empty": None})


def test_an_empty_result_is_a_result() -> None:
    data = events.AnalysisCompletedData(token_id="t", s3_url=stories.S3_URL, result={}, cached=False)
    job = after(stories.new_job(), [stories.made(events.AnalysisCompleted, data)])
    assert progressed(job, job.revision, job.view).result_json == "{}"


@given(arrivals() | ended_from_outside())
def test_the_document_reads_back_as_it_was_written(told: tuple[Arrivals, Arrivals]) -> None:
    job = after(stories.new_job(), told[1])
    assert Job.model_validate(job.model_dump(by_alias=True)) == job


def test_a_new_job_keeps_its_event_to_be_told_again() -> None:
    event = stories.received()
    job = Job.received(event, None, publish_at=stories.BEGAN)
    assert events.decode((job.upload_received or "").encode()) == event
    assert (job.revision, job.view.progress, [entry.revision for entry in job.history]) == (1, 10, [1])
    assert (job.publish_at, job.redrives, job.redriven_at) == (stories.BEGAN, 0, None)


@given(arrivals() | ended_from_outside())
def test_what_a_listener_reads_is_a_job_state_as_documented(told: tuple[Arrivals, Arrivals]) -> None:
    job = after(stories.new_job(), told[1])
    for revision, view in views_since(job, 0):
        text = api.state_json(job.job_id, progressed(job, revision, view), "ko")
        state = api.JobState.model_validate_json(text)
        fields = json.loads(text)
        assert None not in (fields[name] for name in fields if name != "result")
        assert ("result" in fields, "error" in fields) == (
            view.status == Status.COMPLETED,
            view.status == Status.FAILED,
        )
        assert (state.job_id, state.progress, state.stage) == (job.job_id, view.progress, view.stage)


@pytest.mark.parametrize(("percent", "shown"), [(0, 90), (11, 90), (12, 91), (40, 93), (50, 94), (99, 98), (100, 99)])
def test_the_progress_of_an_analysis_is_shown_between_90_and_99(percent: int, shown: int) -> None:
    asked = after(stories.new_job(), COURSES["begun"])
    job = after(asked, [stories.progressed(percent)])
    assert (job.view.progress, job.view.stage, job.view.message) == (shown, Stage.WAITING, "분석 중... 결과 대기")
    assert job.revision - asked.revision == (shown > 90)


def test_a_progress_that_nobody_sees_is_not_kept_in_the_history() -> None:
    job = after(stories.new_job(), [*COURSES["begun"], stories.progressed(50)])
    unseen = [stories.progressed(percent, attempt) for percent in (0, 10, 50, 51) for attempt in (1, 2)]
    assert [apply(job, event) for event in unseen] == [None] * 8
    ended = after(job, [stories.completed()])
    assert apply(ended, stories.progressed(90)) is None


def test_calls_after_the_end_add_a_bounded_number_of_lines_and_a_repeat_adds_none() -> None:
    ended = after(stories.new_job(), [*COURSES["begun"], stories.completed()])
    called = after(ended, [stories.webhook_ignored()] * 50)
    assert len(called.history) == len(ended.history) + 1
    called = after(called, [stories.webhook_ignored(body=f"/{n}") for n in range(500)])
    assert len(called.history) == len(ended.history) + MAX_IGNORED_CALLS
    assert called.view == ended.view


@given(arrivals() | ended_from_outside(), st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=5))
def test_however_far_an_analysis_says_that_it_is_its_job_ends_alike(
    told: tuple[Arrivals, Arrivals], said: list[tuple[int, int]]
) -> None:
    arrived = list(told[1])
    without = after(stories.new_job(), arrived)
    for percent, place in said:
        arrived.insert(place, stories.progressed(percent))
    jobs = steps(arrived)
    progress = [job.view.progress for job in jobs]
    assert progress == sorted(progress)
    unlike = {"stage", "message", "progress"}
    if is_terminal(without.view.status):
        unlike = {"progress"}
    assert {k: v for k, v in seen(jobs[-1]).items() if k not in unlike} == {
        k: v for k, v in seen(without).items() if k not in unlike
    }
    assert len(jobs[-1].history) <= len(without.history) + 9


def test_a_webhook_that_was_set_aside_holds_a_job_however_far_interim_calls_moved_it() -> None:
    held = stories.held("q", events.AnalysisWebhookReceived)
    for happened in ([stories.progressed(100), held], [held, stories.progressed(100)]):
        job = after(stories.new_job(), [*COURSES["begun"], *happened])
        assert (job.view.stage, job.view.progress) == (Stage.HELD, 99)


def test_a_progress_that_was_set_aside_holds_nothing() -> None:
    job = after(stories.new_job(), [*COURSES["begun"], stories.held("q", events.AnalysisProgressed)])
    assert job.view.stage == Stage.WAITING
