"""Shows the parts' logs together, each line with its part's name, and what is added as it comes."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from rich.text import Text

from local_stack.errors import StackError
from local_stack.screen import out

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_red", "bright_cyan", "bright_magenta")
POLL_SECONDS = 0.2


def show_logs(folder: Path, names: list[str], lines: int, follow: bool) -> None:
    """Prints the last `lines` of each log and, if asked to, what follows, until interrupted. Raises StackError."""
    logs = [Log(path) for path in sorted(folder.glob("*.log")) if not names or _wanted(path, names)]
    if not logs:
        raise StackError(f"There are no such logs in {folder}: nothing was started yet, or the name is another.")
    width = max(len(log.name) for log in logs)
    with ExitStack() as opened:
        for log in logs:
            opened.callback(log.close)
            _print(log, log.last(lines), width)
        while follow:
            for log in logs:
                _print(log, log.new(), width)
            time.sleep(POLL_SECONDS)


def _wanted(path: Path, names: list[str]) -> bool:
    """`gateway` means all its replicas."""
    return any(path.stem == name or path.stem.startswith(f"{name}-") for name in names)


def _print(log: "Log", lines: Iterable[str], width: int) -> None:
    style = COLOURS[sum(map(ord, log.name)) % len(COLOURS)]
    for line in lines:
        out.print(Text(f"{log.name:<{width}} │ ", style=style), Text(line), sep="", soft_wrap=True)


class Log:
    """One part's log, read from where the last look ended; a file that was rotated is read to its end first."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self._path = path
        self._file = _open(path)
        self._begun = ""

    def last(self, count: int) -> list[str]:
        """The last lines so far."""
        lines = list(self._lines())
        return lines[-count:] if count else []

    def new(self) -> Iterator[str]:
        """The lines that were completed since the last call."""
        yield from self._lines()
        if self._path.exists() and self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            yield from self._lines()
            self._file.close()
            self._file = _open(self._path)
            yield from self._lines()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _lines(self) -> Iterator[str]:
        whole, _, self._begun = (self._begun + self._file.read()).rpartition("\n")
        yield from whole.splitlines()


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")
