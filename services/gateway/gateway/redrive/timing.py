"""When a job that stands still is told again: pure rules over times."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.job import DELAYED_PROGRESS, Stage

FIRST_LOOK = timedelta(seconds=15)
"""How long a new job is left alone at most; its event is usually handled within a second."""
CLAIM = timedelta(seconds=15)
"""How long one gateway has to tell a job again before another may."""
AFTER_FAILURE = timedelta(seconds=1)
"""When an event whose publishing failed is published again."""
LONGEST = 60
"""The longest wait between two redrives, in multiples of REDRIVE_AFTER."""
JITTER = 0.2
"""The share of a wait that is left to chance: jobs that stood still together are not all told again at once."""


@dataclass(frozen=True)
class StandingJob:
    """A job whose time has come, as far as the rule needs it."""

    job_id: str
    publish_at: datetime
    updated_at: datetime
    stage: Stage
    progress: int
    redrives: int
    redriven_at: datetime | None
    analysis_deadline: datetime | None
    is_received: bool
    """Whether its history has upload.received. Without it, subscribers may never have seen the job."""


@dataclass(frozen=True)
class Wait:
    """The job is looked at again at `until`."""

    until: datetime
    redrives: int


@dataclass(frozen=True)
class Tell:
    """The job is told again; it has been told `redrives` times in vain."""

    redrives: int


def first_look(now: datetime, after: timedelta) -> datetime:
    """Return when a job that is inserted now is looked at for the first time."""
    return now + min(FIRST_LOOK, after)


def decide(job: StandingJob, now: datetime, after: timedelta) -> Wait | Tell:
    """Decide what becomes of a job whose time has come; `after` is REDRIVE_AFTER."""
    if (until := _left_alone_until(job, after)) is not None and now < until:
        return Wait(until, job.redrives)
    if not job.is_received or (job.redriven_at is not None and job.updated_at <= job.redriven_at):
        return Tell(job.redrives)
    until = job.updated_at + after
    return Wait(until, 0) if now < until else Tell(0)


def next_look(now: datetime, after: timedelta, redrives: int) -> datetime:
    """Return when a job is looked at that was told again for the `redrives`-th time in a row (from 1)."""
    wait = after * min(2.0 ** min(redrives, LONGEST), LONGEST)
    return now + wait * random.uniform(1 - JITTER, 1)  # noqa: S311 - jitter, not a secret


def _left_alone_until(job: StandingJob, after: timedelta) -> datetime | None:
    """Return until when a job is known to wait for something else than an event; None when it is not."""
    waits_for_operator = job.stage == Stage.HELD
    if waits_for_operator or (job.stage == Stage.WAITING and job.progress == DELAYED_PROGRESS):
        return max(job.updated_at, job.redriven_at or job.updated_at) + LONGEST * after
    if job.stage == Stage.WAITING and job.analysis_deadline is not None:
        return job.analysis_deadline + after
    return None
