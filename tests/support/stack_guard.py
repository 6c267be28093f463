"""Stops a test run's stack when the run has ended in any way, a kill included.

`python -m tests.support.stack_guard HOME` waits for its standard input to close, which happens when the process that
started it is gone.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_stack.stack import Stack

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def guarded(home: Path) -> Iterator[None]:
    """Have the stack in `home` stopped, and its data removed, should this process die within the block."""
    guard = subprocess.Popen(
        [sys.executable, "-m", __name__, str(home)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the test run, which stops its stack itself
    )
    with guard:
        yield


def main() -> None:
    """Wait for the end, then clear up what is left."""
    home = Path(sys.argv[1])
    sys.stdin.read()
    if home.exists():
        Stack(home).down()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
