"""The commands of `sorictl jobs`, and what is offered for jobs whose dead letters were discarded."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

import typer

from contracts.job import Job
from sorictl import job_store, redriving
from sorictl.errors import InterruptedByUserError, NotRedrivenError, SorictlError
from sorictl.rendering import printable
from sorictl.screen import EXIT_STATUSES, err, out
from sorictl.sessions import with_rabbitmq
from sorictl.settings import BrokerSettings, DatabaseSettings, read_settings

MOST_NAMED = 5
"""How many jobs a printed command names; 40 characters each."""

jobs_app = typer.Typer(
    help="`jobs redrive` has jobs that stand still begin anew (in MONGODB_URL and RABBITMQ_URL).",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
)


@jobs_app.command("redrive")
def redrive_jobs(
    job_ids: Annotated[list[str], typer.Argument(metavar="JOB", help="Ids of jobs that have not ended.")],
) -> None:
    """Have jobs begin their way anew at once: what was done for them is told again, not done again.

    The gateway does so by itself, later and later while a job does not move.
    """
    choice = _redriven(job_ids)
    if choice.events or len(choice.refusals) > 1:
        out.print(f"Redriven {len(choice.events):,} of {_counted(len(choice.events) + len(choice.refusals))}.")
    sentences = [printable(f"{job_id}: {why}") for job_id, why in choice.refusals.items()]
    for sentence in sentences[:-1]:
        err.print(sentence, markup=False, soft_wrap=True)
    if sentences:
        raise NotRedrivenError(sentences[-1])


def require_redrivable() -> None:
    """Raise SettingError unless all is set that a redrive needs; to be called before something is done for good."""
    read_settings(BrokerSettings)
    read_settings(DatabaseSettings)


def offer_redrive(job_ids: Sequence[str], *, redrive: bool, ask: bool) -> None:
    """Redrive those of the jobs that have not ended: told to (`redrive`), or when the answer is yes; else say how."""
    if not job_ids:
        return
    held = "the job that it held" if len(job_ids) == 1 else f"the {len(job_ids):,} jobs that they held"
    if not redrive and not (ask and sys.stdin.isatty() and typer.confirm(f"Redrive {held}?")):
        say_how_to_redrive(job_ids)
        return
    try:
        choice = _redriven(job_ids)
    except SorictlError:
        say_how_to_redrive(job_ids)
        raise
    out.print(f"Redriven {len(choice.events):,} of {_counted(len(job_ids))}.")
    for why, count in Counter(choice.refusals.values()).items():
        out.print(f"{_counted(count)} not: {why}", markup=False)


def say_how_to_redrive(job_ids: Sequence[str]) -> None:
    """Print the command that redrives these jobs, with the first few of them when they are many."""
    if not job_ids:
        return
    more = f" … (and {len(job_ids) - MOST_NAMED:,} more)" if len(job_ids) > MOST_NAMED else ""
    command = f"sorictl jobs redrive {' '.join(job_ids[:MOST_NAMED])}{more}"
    them = "it" if len(job_ids) == 1 else "them"
    out.print(f"To have {them} begin anew at once:\n  {command}", markup=False, soft_wrap=True)


def _redriven(job_ids: Sequence[str]) -> redriving.Choice:
    choice = redriving.choose(job_ids, _known(job_ids))
    if choice.events:
        with_rabbitmq(
            lambda rabbitmq: redriving.redrive(rabbitmq, choice.events),
            interrupted="interrupted; some jobs may have been redriven. It can be repeated.",
        )
    return choice


def _known(job_ids: Sequence[str]) -> dict[str, Job]:
    url = str(read_settings(DatabaseSettings).mongodb_url)
    try:
        with job_store.connected(url) as store:
            return store.find(job_ids)
    except KeyboardInterrupt:
        raise InterruptedByUserError("interrupted; no job was redriven.") from None


def _counted(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"
