"""What a person sees: colours and moving bars on a terminal, plain lines elsewhere."""

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from local_stack.errors import StackError
from local_stack.part import Part

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def is_interactive() -> bool:
    """Whether a person sits at both ends: only then is it right to stay and wait for Ctrl-C."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def show_error(error: StackError) -> None:
    """The sentence, then its details, dimmed; neither is read as markup."""
    err.print(f"Error: {error}", style="bold red", markup=False, soft_wrap=True)
    for line in error.details:
        err.print(f"  {line}", style="dim", markup=False, soft_wrap=True)


class PartsProgress:
    """Shows the parts of a stack as they get ready."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<18}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[address]}"),
            console=out,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if out.is_terminal:
            self._bars.start()
            for part in self._parts:
                self._tasks[part.name] = self._bars.add_task(part.name, total=1, address="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if out.is_terminal:
            self._bars.stop()

    def ready(self, part: Part, seconds: float) -> None:
        """Shows that a part is ready, and after how long."""
        if out.is_terminal:
            self._bars.update(self._tasks[part.name], completed=1, address=part.address)
        else:
            out.print(f"{part.name} is ready after {seconds:.1f} s: {part.address}", soft_wrap=True)

    def stopping(self) -> None:
        """Says why nothing more happens for some seconds."""
        self._bars.stop()
        out.print("Stopping everything again …")
