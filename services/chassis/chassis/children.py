"""Child processes that work for this one: kept, bounded in memory and in time, and replaced when they end."""

import asyncio
import math
import multiprocessing
import os
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple, TypeVar

import structlog

log = structlog.get_logger()

Found = TypeVar("Found")

# Forking a process that runs an event loop and threads is unsafe.
_CONTEXT = multiprocessing.get_context("spawn")
_DEATH_SECONDS = 5.0
"""How long a killed child may take to be gone."""
_MOST_DEATHS = 2
"""Work whose child dies so often is what kills it; once, somebody else may have done it."""


class ExhaustedError(Exception):
    """The work needs more memory or more time of a processor than it may have, or kills its process."""

    code = "exhausted"


class LateError(Exception):
    """The work took too long, though not by its own use of a processor; it may succeed at another time."""

    code = "late"


class Limits(NamedTuple):
    """What one piece of work may take: seconds of a processor, and seconds by the clock."""

    cpu_seconds: float
    wall_seconds: float


class Children:
    """Up to `count` processes. Each does one piece of work at a time, and ends when this process ends."""

    def __init__(self, count: int, memory_bytes: int, prepare: Callable[[], None]) -> None:
        """Let each child take so much memory beyond what it has after `prepare`, with which it begins."""
        self._memory_bytes = memory_bytes
        self._prepare = prepare
        self._count = count
        self._places = asyncio.Semaphore(count)
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="child")

    async def start(self) -> None:
        """Start all of them now, rather than when they are first needed, and return when they are ready."""
        await asyncio.gather(*(self.do(os.getpid, limits=Limits(60, 60)) for _ in range(self._count)))

    async def do(self, work: Callable[..., Found], *told: object, limits: Limits) -> Found:
        """Return what `work`, a function of a module, returns for `told` in a child, or raise what it raises.

        Raises ExhaustedError when it would fail again, and LateError when it may not.
        """
        for _ in range(_MOST_DEATHS):
            try:
                return await self._do(work, told, limits)
            except _DiedError as death:
                log.warning("a child process died", exit_code=death.exit_code)
                if death.exit_code == -signal.SIGXCPU:
                    break
            except MemoryError:
                break
        raise ExhaustedError

    def stop(self) -> None:
        """End every child at once, whatever it is doing."""
        for child in self._all:
            child.kill()
        for child in self._all:
            child.join()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[..., Found], told: tuple[object, ...], limits: Limits) -> Found:
        async with self._places:
            child = self._idle_one() or _Child(self._memory_bytes, self._prepare)
            self._all.add(child)
            try:
                reply = await self._reply(child, work, told, limits)
            except BaseException:
                # Dead, late, or nobody waits for it any more.
                self._all.discard(child)
                child.kill()
                raise
            self._idle.append(child)
        if reply.error is not None:
            raise reply.error
        found: Found = reply.found
        return found

    def _idle_one(self) -> "_Child | None":
        """Take out a child that waits for work. Those that were killed meanwhile are forgotten."""
        while self._idle:
            child = self._idle.pop()
            if child.is_alive():
                return child
            self._all.discard(child)
        return None

    async def _reply(
        self, child: "_Child", work: Callable[..., object], told: tuple[object, ...], limits: Limits
    ) -> "_Reply":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.wall_seconds):
                reply = await loop.run_in_executor(self._threads, child.do, work, told, limits.cpu_seconds)
        except TimeoutError:
            raise LateError from None
        if isinstance(reply.error, MemoryError):
            # The child's memory may be in pieces.
            raise reply.error
        return reply


class _DiedError(Exception):
    def __init__(self, exit_code: int | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class _Reply(NamedTuple):
    found: Any = None
    error: BaseException | None = None


class _Child:
    """One process; `do` runs in a thread."""

    def __init__(self, memory_bytes: int, prepare: Callable[[], None]) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, memory_bytes, prepare), daemon=True)
        self._process.start()
        theirs.close()

    def do(self, work: Callable[..., object], told: tuple[object, ...], cpu_seconds: float) -> _Reply:
        """Hand the work over and wait for the reply; _DiedError when there will be none."""
        try:
            self._pipe.send((work, told, cpu_seconds))
            reply: _Reply = self._pipe.recv()
        except (EOFError, OSError):
            self.join()
            raise _DiedError(self._process.exitcode) from None
        return reply

    def is_alive(self) -> bool:
        """Tell whether the process can do something."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End the process, which ends `do` too."""
        self._process.kill()

    def join(self) -> None:
        """Wait until the process is gone."""
        self._process.join(_DEATH_SECONDS)


def _serve(pipe: Connection, memory_bytes: int, prepare: Callable[[], None]) -> None:
    """Do the work that comes, until the parent ends."""
    os.setpgid(0, 0)  # Ctrl-C is for the parent: it ends us when it is done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    while True:
        work, told, cpu_seconds = pipe.recv()
        pipe.send(_done(work, told, cpu_seconds))


def _done(work: Callable[..., object], told: tuple[object, ...], cpu_seconds: float) -> _Reply:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # The kernel ends us with SIGXCPU then: an exception could not stop a decoder that hangs in native code.
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(process_time() + cpu_seconds), hard))
    try:
        return _Reply(found=work(*told))
    except Exception as error:  # noqa: BLE001 - the parent raises it
        error.add_note(traceback.format_exc())
        return _Reply(error=error)


def _address_space() -> int:
    """Return how many bytes of addresses this process has (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
