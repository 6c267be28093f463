"""The commands of `sorictl`: their options, and what they print."""

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from sorictl import rendering
from sorictl.catalogue_cli import catalogue_app
from sorictl.dead_letters import DeadLetters
from sorictl.errors import (
    IncompleteError,
    NothingMatchesError,
    SorictlError,
)
from sorictl.filters import Filters, parse_age, queues_named
from sorictl.jobs_cli import jobs_app, offer_redrive, require_redrivable, say_how_to_redrive
from sorictl.keys_cli import keys_app
from sorictl.letter import DeadLetter, Message
from sorictl.screen import EXIT_STATUSES, confirm, err, out, progress
from sorictl.session_keys import session_keys
from sorictl.sessions import with_rabbitmq
from sorictl.setup_cli import setup

Answer = TypeVar("Answer")

LIMIT = 1000

app = typer.Typer(
    help="The operator's command for Sori.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
dead_letters_app = typer.Typer(
    help="Messages that no retry could help (in RABBITMQ_URL). All filters that are given must fit.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
)
app.add_typer(dead_letters_app, name="dead-letters")
app.add_typer(jobs_app, name="jobs")
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(keys_app, name="keys")
app.command("session-keys")(session_keys)
app.command("setup")(setup)


@app.callback()
def sorictl() -> None:
    """The operator's command for Sori. Its settings come from the environment or from .env."""


def _age(text: str) -> timedelta:
    try:
        return parse_age(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of messages, as `list` shows them.")]
Queues = Annotated[
    list[str] | None, typer.Option("--queue", "-q", help="A queue's name, or a pattern: 'notifier.*'. May be repeated.")
]
Job = Annotated[str | None, typer.Option("--job", "-j", help="The id of a job.")]
Reason = Annotated[str | None, typer.Option("--reason", "-r", help="Part of the reason, in any case.")]
OlderThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Set aside longer ago than this: 10m, 2h, 3d.")
]
NewerThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Set aside since then: 10m, 2h, 3d.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: one JSON object on each line.")]


def main() -> None:
    """Run one command; a sentence and the exit status say what failed."""
    logging.disable()  # a failure is reported once, as a sentence
    try:
        app(prog_name="sorictl")
    except SorictlError as error:
        err.print(f"sorictl: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_status)


@dead_letters_app.command("list")
def list_dead_letters(
    ids: Ids = None,
    *,
    queue: Queues = None,
    job: Job = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = LIMIT,
    as_json: AsJson = False,
) -> None:
    """List what waits, by queue; an empty list is no error."""
    filters = _filters(ids, queue=queue, job=job, reason=reason, older_than=older_than, newer_than=newer_than)
    letters, more = _found(filters, limit)
    if as_json:
        for letter in letters:
            typer.echo(rendering.line_json(letter))
    elif letters:
        out.print(rendering.table(letters))
    else:
        out.print("There are no dead letters." if filters == Filters() else "No dead letter matches.")
    _say_more(more, limit)


@dead_letters_app.command()
def show(
    ids: Ids = None,
    *,
    queue: Queues = None,
    job: Job = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = 1,
    full: Annotated[bool, typer.Option("--full", help="Shorten nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one message whole: headers and body, without what looks like a secret."""
    shown: list[str] = []

    def note(letter: DeadLetter, message: Message) -> None:
        if as_json:
            shown.append(rendering.whole_json(letter, message, full=full))
        else:
            with out.capture() as captured:
                out.print(rendering.whole(letter, message, full=full), soft_wrap=True)
            shown.append(captured.get())

    filters = _filters(ids, queue=queue, job=job, reason=reason, older_than=older_than, newer_than=newer_than)
    more = _each_found(filters, limit, note)
    _require(shown)
    for text in shown:
        typer.echo(text.rstrip("\n"))
    _say_more(more, limit)


@dead_letters_app.command()
def replay(
    ids: Ids = None,
    *,
    queue: Queues = None,
    job: Job = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = LIMIT,
    yes: Yes = False,
) -> None:
    """Put messages back into their queues, with the ids that they had, and let the jobs go that they hold."""
    filters = _filters(ids, queue=queue, job=job, reason=reason, older_than=older_than, newer_than=newer_than)
    letters, more = _found(filters, limit)
    _require(letters)
    out.print(f"{rendering.counted(len(letters))} would go back to be handled again:")
    out.print(rendering.totals(letters))
    _say_more(more, limit)
    confirm("Replay?", yes)
    _done("Replayed", letters, DeadLetters.replay, [])


@dead_letters_app.command()
def discard(
    ids: Ids = None,
    *,
    queue: Queues = None,
    job: Job = None,
    reason: Reason = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Limit = LIMIT,
    everything: Annotated[bool, typer.Option("--all", help="All there are, when no filter is given.")] = False,
    redrive: Annotated[bool, typer.Option("--redrive", help="Then redrive the jobs that they held.")] = False,
    yes: Yes = False,
) -> None:
    """Throw messages away for good; a job that one of them holds can be redriven (`jobs redrive`)."""
    if not everything and not any((ids, queue, job, reason, older_than, newer_than)):
        raise typer.BadParameter("which ones? Give ids or filters, or --all.")
    filters = _filters(ids, queue=queue, job=job, reason=reason, older_than=older_than, newer_than=newer_than)
    letters, more = _found(filters, limit)
    _require(letters)
    out.print(f"{rendering.counted(len(letters))} would be thrown away for good:")
    out.print(rendering.totals(letters))
    if _jobs_of(letters):
        out.print(
            "A job that one of them holds stays held until it is redriven (by the gateway after 60 × REDRIVE_AFTER, at "
            "once by `sorictl jobs redrive`), JOB_MAX_AGE fails it, or DELETE /jobs/{id} cancels it."
        )
        if redrive:
            require_redrivable()
    _say_more(more, limit)
    confirm("Discard?", yes)
    _discard(letters, redrive=redrive, ask=not yes)


def _discard(letters: Sequence[DeadLetter], *, redrive: bool, ask: bool) -> None:
    discarded: list[DeadLetter] = []
    incomplete: IncompleteError | None = None
    try:
        _done("Discarded", letters, DeadLetters.discard, discarded)
    except IncompleteError as error:
        incomplete = error
    except SorictlError:
        say_how_to_redrive(_jobs_of(discarded))
        raise
    offer_redrive(_jobs_of(discarded), redrive=redrive, ask=ask)
    if incomplete is not None:
        raise incomplete


def _jobs_of(letters: Iterable[DeadLetter]) -> list[str]:
    """The jobs that letters name, each once."""
    return list(dict.fromkeys(letter.job_id for letter in letters if letter.job_id is not None))


def _filters(
    ids: list[str] | None,
    *,
    queue: list[str] | None,
    job: str | None,
    reason: str | None,
    older_than: timedelta | None,
    newer_than: timedelta | None,
) -> Filters:
    try:
        queues = queues_named(queue or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--queue") from None
    now = datetime.now(UTC)
    return Filters(
        queues=queues,
        ids=frozenset(ids or []),
        job=job,
        reason=reason,
        set_aside_before=now - older_than if older_than is not None else None,
        set_aside_after=now - newer_than if newer_than is not None else None,
    )


def _found(filters: Filters, limit: int) -> tuple[list[DeadLetter], bool]:
    letters: list[DeadLetter] = []
    more = _each_found(filters, limit, lambda letter, _: letters.append(letter))
    return letters, more


def _each_found(filters: Filters, limit: int, found: Callable[[DeadLetter, Message], None]) -> bool:
    with err.status("Looking …"):
        return _run(lambda dead_letters: dead_letters.find(filters, limit, found))


def _run(work: Callable[[DeadLetters], Awaitable[Answer]]) -> Answer:
    return with_rabbitmq(
        lambda rabbitmq: work(DeadLetters(rabbitmq)),
        interrupted="interrupted; what was not done yet stays among the dead letters.",
    )


def _done(
    did: str,
    letters: Sequence[DeadLetter],
    act: Callable[[DeadLetters, Sequence[DeadLetter], Callable[[DeadLetter], None]], Awaitable[None]],
    done: list[DeadLetter],
) -> None:
    """Run the action, note in `done` which letters were done, and say how many, however it ends."""
    try:
        with progress(did, len(letters)) as show_done:

            def note(letter: DeadLetter) -> None:
                done.append(letter)
                show_done(len(done))

            _run(lambda dead_letters: act(dead_letters, letters, note))
    finally:
        out.print(f"{did} {len(done):,} of {rendering.counted(len(letters))}.")
    if len(done) < len(letters):
        missing = len(letters) - len(done)
        raise IncompleteError(
            f"{missing:,} were no longer there: somebody else has dealt with them, or looks at them now."
        )


def _require(found: Sequence[object]) -> None:
    if not found:
        raise NothingMatchesError("no dead letter matches.")


def _say_more(more: bool, limit: int) -> None:
    if more:
        err.print(f"There are more than {limit:,}: a larger --limit, or narrower filters, reach the others.")
