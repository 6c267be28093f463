"""What the children of tests/unit/chassis/test_children.py do; a child that imports pytest for it takes a second."""

import os
import resource
import signal
import threading
import time
from pathlib import Path

MIB = 1024 * 1024
FOREVER_SECONDS = 1000


def nothing() -> None:
    """Prepare nothing."""


def unprepared() -> None:
    """Fail as a broken installation does."""
    raise RuntimeError("a library is missing")


def allocate(mebibytes: int) -> int:
    """Take so much memory."""
    return len(bytearray(mebibytes * MIB))


_HOARD: list[bytearray] = []


def hoard(mebibytes: int) -> None:
    """Take so much memory and keep it, as memory in pieces does."""
    _HOARD.append(bytearray(mebibytes * MIB))


def burn() -> None:
    """Use a processor for ever."""
    while True:
        pass


def wait(started: str) -> None:
    """Take no processor time, and tell who waits."""
    Path(started).write_text(str(os.getpid()))
    time.sleep(FOREVER_SECONDS)


def kill_at_first(seen: str) -> str:
    """Kill this process, but only the first time."""
    path = Path(seen)
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def kill_always(count: str) -> None:
    """Kill this process, and count how often."""
    with Path(count).open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGSEGV)


class TwoPartsError(Exception):
    """Can be pickled, but not read: its constructor wants more than its message."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class OwnMemoryError(MemoryError):
    """As a library has its own."""


def fail(kind: str) -> None:
    """Raise an exception of this kind."""
    match kind:
        case "value":
            raise ValueError("no")
        case "two parts":
            raise TwoPartsError("a", "b")
        case "memory":
            raise OwnMemoryError
    raise SystemExit(3)


def unpicklable() -> object:
    """Return what cannot be sent."""
    return threading.Lock()


def limits_of() -> tuple[int, int]:
    """Return the bounds of memory and of core dumps."""
    return resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CORE)[0]
