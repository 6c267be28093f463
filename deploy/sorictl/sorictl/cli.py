"""The commands of `sorictl`: their options, and what they print."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer

from sorictl import rendering
from sorictl.catalogue_cli import catalogue_app
from sorictl.dead_letters import DeadLetters
from sorictl.errors import (
    DeclinedError,
    IncompleteError,
    InterruptedByUserError,
    NobodyToAskError,
    NothingMatchesError,
    SorictlError,
)
from sorictl.filters import Filters, parse_age, queues_named
from sorictl.letter import DeadLetter, Message
from sorictl.rabbitmq import connected
from sorictl.screen import EXIT_STATUSES, err, out, progress
from sorictl.settings import BrokerSettings, read_settings

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
app.add_typer(catalogue_app, name="catalogue")


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
    _confirm("Replay?", yes)
    _done("Replayed", letters, DeadLetters.replay)


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
    yes: Yes = False,
) -> None:
    """Throw messages away for good; a job that one of them holds stays held."""
    if not everything and not any((ids, queue, job, reason, older_than, newer_than)):
        raise typer.BadParameter("which ones? Give ids or filters, or --all.")
    filters = _filters(ids, queue=queue, job=job, reason=reason, older_than=older_than, newer_than=newer_than)
    letters, more = _found(filters, limit)
    _require(letters)
    out.print(f"{rendering.counted(len(letters))} would be thrown away for good:")
    out.print(rendering.totals(letters))
    if any(letter.job_id for letter in letters):
        out.print(
            "A job that one of them holds stays held until JOB_MAX_AGE fails it, or DELETE /jobs/{id} cancels it."
        )
    _say_more(more, limit)
    _confirm("Discard?", yes)
    _done("Discarded", letters, DeadLetters.discard)


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
    url = str(read_settings(BrokerSettings).rabbitmq_url)

    async def connect_and_work() -> Answer:
        async with connected(url) as rabbitmq:
            return await work(DeadLetters(rabbitmq))

    try:
        return asyncio.run(connect_and_work())
    except KeyboardInterrupt:
        raise InterruptedByUserError("interrupted; what was not done yet stays among the dead letters.") from None


def _done(
    did: str,
    letters: Sequence[DeadLetter],
    act: Callable[[DeadLetters, Sequence[DeadLetter], Callable[[], None]], Awaitable[None]],
) -> None:
    """Run the action, and say how many were done, however it ends."""
    count = 0
    try:
        with progress(did, len(letters)) as show_done:

            def done() -> None:
                nonlocal count
                count += 1
                show_done(count)

            _run(lambda dead_letters: act(dead_letters, letters, done))
    finally:
        out.print(f"{did} {count:,} of {rendering.counted(len(letters))}.")
    if count < len(letters):
        raise IncompleteError(
            f"{len(letters) - count:,} were no longer there: somebody else has dealt with them, or looks at them now."
        )


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise NobodyToAskError("nobody can be asked here: say --yes when that is what you want.")
    if not typer.confirm(question):
        raise DeclinedError("nothing was changed.")


def _require(found: Sequence[object]) -> None:
    if not found:
        raise NothingMatchesError("no dead letter matches.")


def _say_more(more: bool, limit: int) -> None:
    if more:
        err.print(f"There are more than {limit:,}: a larger --limit, or narrower filters, reach the others.")
