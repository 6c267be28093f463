"""When a job that stands still is told again."""

from dataclasses import replace
from datetime import timedelta

import pytest

from contracts.job import Stage
from gateway.redrive import timing
from gateway.redrive.timing import StandingJob, Tell, Wait, decide
from tests.unit import stories

NOW = stories.BEGAN
AFTER = timedelta(seconds=60)
JOB = StandingJob(
    job_id=stories.JOB_ID,
    publish_at=NOW,
    updated_at=NOW - timedelta(hours=1),
    stage=Stage.STORING,
    progress=40,
    redrives=0,
    redriven_at=None,
    analysis_deadline=None,
    is_received=True,
)


def ago(**times: float) -> timedelta:
    return timedelta(**times)


@pytest.mark.parametrize(
    ("after", "wait"), [(timedelta(seconds=60), timedelta(seconds=15)), (timedelta(seconds=2), timedelta(seconds=2))]
)
def test_a_new_job_is_looked_at_after_a_quarter_of_a_minute_or_sooner(after: timedelta, wait: timedelta) -> None:
    assert timing.first_look(NOW, after) == NOW + wait


def test_a_job_that_has_not_moved_is_told_again() -> None:
    assert decide(JOB, NOW, AFTER) == Tell(0)
    told = replace(JOB, redrives=3, redriven_at=NOW - ago(minutes=8))
    assert decide(told, NOW, AFTER) == Tell(3)


def test_a_job_that_moved_lately_only_gets_more_time() -> None:
    moved = replace(JOB, redrives=3, redriven_at=NOW - ago(minutes=8), updated_at=NOW - ago(seconds=20))
    assert decide(moved, NOW, AFTER) == Wait(NOW + ago(seconds=40), redrives=0)


def test_a_job_that_moved_and_stood_still_again_is_told_as_if_for_the_first_time() -> None:
    moved = replace(JOB, redrives=5, redriven_at=NOW - ago(hours=1), updated_at=NOW - ago(minutes=30))
    assert decide(moved, NOW, AFTER) == Tell(0)


def test_an_analysis_under_way_is_left_alone_until_its_deadline_and_as_long_as_any_after_it() -> None:
    asked = replace(JOB, stage=Stage.WAITING, progress=90, analysis_deadline=NOW + ago(minutes=5))
    assert decide(asked, NOW, AFTER) == Wait(NOW + ago(minutes=6), redrives=0)
    assert decide(asked, NOW + ago(minutes=6), AFTER) == Tell(0)


@pytest.mark.parametrize(("stage", "progress"), [(Stage.HELD, 40), (Stage.HELD, 90), (Stage.WAITING, 70)])
def test_a_job_that_waits_for_an_operator_or_its_turn_is_seldom_told_again(stage: Stage, progress: int) -> None:
    waiting = replace(JOB, stage=stage, progress=progress, updated_at=NOW - ago(minutes=10))
    assert decide(waiting, NOW, AFTER) == Wait(NOW + ago(minutes=50), redrives=0)
    long_since = replace(waiting, updated_at=NOW - ago(minutes=61))
    assert decide(long_since, NOW, AFTER) == Tell(0)
    told = replace(long_since, redrives=1, redriven_at=NOW - ago(minutes=1))
    assert decide(told, NOW, AFTER) == Wait(NOW + ago(minutes=59), redrives=1)


def test_a_job_that_nobody_has_seen_is_told_at_once_unless_it_is_held() -> None:
    unseen = replace(JOB, is_received=False, updated_at=NOW)
    assert decide(unseen, NOW, AFTER) == Tell(0)
    assert decide(replace(unseen, stage=Stage.HELD), NOW, AFTER) == Wait(NOW + ago(minutes=60), redrives=0)


def test_a_job_that_subscribers_have_seen_has_its_time_from_then_on() -> None:
    assert decide(replace(JOB, updated_at=NOW - ago(seconds=15)), NOW, AFTER) == Wait(NOW + ago(seconds=45), redrives=0)


def test_waits_double_up_to_sixty_times_and_are_not_all_the_same() -> None:
    for redrives, most in ((1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (7, 60), (5000, 60)):
        waits = {timing.next_look(NOW, AFTER, redrives) - NOW for _ in range(50)}
        assert len(waits) > 10
        assert all(0.8 * most * AFTER <= wait <= most * AFTER for wait in waits)
