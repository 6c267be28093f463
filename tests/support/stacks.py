"""A whole stack for a test run: on ports and in a home of its own, gone when the run ends."""

import asyncio
import os
import random
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from local_stack.ports import LOOPBACK, taken
from local_stack.stack import Stack
from tests.support.stack_guard import guarded
from tests.support.waiting import until_true

PORTS_PER_RUN = 60
"""The stack's own ports, and some for the programs beside it."""
BASELINE_OFFSET = 50
CLAIM_OFFSET = PORTS_PER_RUN - 1
BASES = range(12_000, 30_000, PORTS_PER_RUN)
"""Above the ports that people choose by hand, below those that the kernel gives to outgoing connections."""
UP_SECONDS = 100
STACKS = pytest.StashKey[list[Stack]]()
"""The stacks whose logs are shown with a test that fails."""


@contextmanager
def running_stack(given: Mapping[str, str], change: Callable[[Stack], None] | None = None) -> Iterator[Stack]:
    """Two replicas of every service, with these settings; stopped at the end of the block whatever happens.

    `change` may change the stack's parts before they are started.
    """
    with claimed_ports() as base, tempfile.TemporaryDirectory(prefix="sori-test-") as folder:
        home = Path(folder)
        with guarded(home):
            stack = Stack(home, port_base=base, replicas=2, given=given, timeout=UP_SECONDS)
            if change is not None:
                change(stack)
            try:
                stack.up()
                yield stack
            finally:
                stack.down()


@contextmanager
def logs_shown(config: pytest.Config, stack: Stack) -> Iterator[None]:
    """Show what the stack says during a test in this block with that test, if it fails."""
    stacks = config.stash.setdefault(STACKS, [])
    stacks.append(stack)
    try:
        yield
    finally:
        stacks.remove(stack)


@contextmanager
def claimed_ports() -> Iterator[int]:
    """Yield a base whose ports are free, and keep other runs, of any checkout, off them until the block ends."""
    # Runs that begin at the same moment try different bases first.
    for base in random.Random(os.getpid()).sample(BASES, len(BASES)):
        with socket.socket() as claim:
            try:
                claim.bind((LOOPBACK, base + CLAIM_OFFSET))
            except OSError:
                continue
            if not taken({base + offset: "the tests" for offset in range(CLAIM_OFFSET)}):
                yield base
                return
    raise RuntimeError(f"No {PORTS_PER_RUN} free ports in a row between {BASES.start} and {BASES.stop}.")


async def kill_and_await(stack: Stack, *parts: str) -> None:
    """End parts as a crash would, and return when the process manager has them ready again."""
    before = {part: set(stack.pids(part)) for part in parts}
    for part in parts:
        stack.kill(part)
    for part in parts:
        await until_true(lambda part=part: bool(set(stack.pids(part)) - before[part]), f"a new {part}")  # type: ignore[misc] # mypy cannot infer a lambda with a default
    await asyncio.to_thread(stack.wait_until_ready, *parts)


def log_sizes(stack: Stack) -> dict[Path, int]:
    """How long each of the stack's logs is now."""
    return {path: path.stat().st_size for path in _logs(stack)}


def log_tails(stack: Stack, since: Mapping[Path, int], lines: int) -> dict[str, str]:
    """The last lines that each part has logged since, by part; parts that said nothing are left out."""
    tails = {}
    for path in _logs(stack):
        with path.open("rb") as log:
            log.seek(since.get(path, 0) if path.stat().st_size >= since.get(path, 0) else 0)
            said = log.read().decode(errors="replace").splitlines()
        if said:
            tails[path.stem] = "\n".join(said[-lines:])
    return tails


def _logs(stack: Stack) -> list[Path]:
    return sorted((stack.home / "logs").glob("*.log"))
