"""What all commands share on the terminal: the consoles, the progress bar, the questions, the exit statuses."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sorictl.errors import DeclinedError, NobodyToAskError

EXIT_STATUSES = "Exits with 0 when all was done, 1 when not (a sentence says why), 2 for a wrong option or setting."

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)


def confirm(question: str, yes: bool) -> None:
    """Return when the answer is yes, or was given (`yes`); else raise DeclinedError, or NobodyToAskError."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NobodyToAskError("nobody can be asked here: say --yes when that is what you want.")
    if not typer.confirm(question):
        raise DeclinedError("nothing was changed.")


@contextmanager
def progress(did: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, nothing elsewhere; call the yielded function with the number that is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        task = bars.add_task(did, total=total)
        yield lambda done: bars.update(task, completed=done)
