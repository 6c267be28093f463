"""Finds and ends the processes of one stack, by a mark that each has in its environment; imports nothing slow.

The mark is inherited, so it also finds what a part has started and what a killed process manager has left. It holds
the stack's home: another stack's processes, or any other program, never match.
"""

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

STACK = "SORI_STACK"
PART = "SORI_PART"
SUPERVISOR = "supervisord"


def mark(home: Path, part: str) -> dict[str, str]:
    """What to put into the environment of a part's process."""
    return {STACK: str(home), PART: part}


def of_stack(home: Path) -> dict[int, str]:
    """Every living process of the stack but the caller, as {pid: part}."""
    stack = f"{STACK}={home}".encode()
    prefix = f"{PART}=".encode()
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            names = _environment(process)
            if stack in names:
                part = next((name for name in names if name.startswith(prefix)), prefix)
                found[int(process.name)] = part.removeprefix(prefix).decode()
    return found


def of_part(home: Path, part: str) -> list[int]:
    """Every living process of one part but the caller."""
    return [pid for pid, name in of_stack(home).items() if name == part]


def kill(pids: Iterable[int], sig: signal.Signals) -> None:
    """Sends a signal to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            continue


def end(home: Path, parts: Iterable[str], patience: float) -> None:
    """Ends the parts' processes: SIGTERM, and SIGKILL for those that are left after `patience` seconds."""
    names = set(parts)
    kill(_of_parts(home, names), signal.SIGTERM)
    if not _gone(home, names, patience):
        kill(_of_parts(home, names), signal.SIGKILL)
        _gone(home, names, patience=10)


def _of_parts(home: Path, names: set[str]) -> list[int]:
    return [pid for pid, part in of_stack(home).items() if part in names]


def _gone(home: Path, names: set[str], patience: float) -> bool:
    limit = time.monotonic() + patience
    while _of_parts(home, names):
        if time.monotonic() > limit:
            return False
        time.sleep(0.05)
    return True


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
