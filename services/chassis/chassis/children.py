"""Child processes that work for this one: kept, bounded in memory and in time, and replaced when they end."""

import asyncio
import math
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
    """The work took too long, though not by its own use of a processor, or no process could begin it.

    It may succeed at another time.
    """

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
        self._is_stopped = False
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
        for attempt in range(1, _MOST_DEATHS + 1):
            try:
                return await self._do(work, told, limits, in_new=attempt > 1)
            except _LostError as lost:
                log.warning("a child process was lost", reason=str(lost))
                if lost.is_killed and attempt == _MOST_DEATHS:
                    # No bound of ours kills so. The machine may be out of memory, for which this work is not to blame.
                    raise LateError from None
                if not lost.may_succeed:
                    break
        raise ExhaustedError

    def stop(self) -> None:
        """End every child at once, whatever it is doing. What it was doing ends with LateError."""
        self._is_stopped = True
        children = list(self._all)
        for child in children:
            child.kill()
        for child in children:
            child.join()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _do(self, work: Callable[..., Found], told: tuple[object, ...], limits: Limits, *, in_new: bool) -> Found:
        async with self._places:
            if self._is_stopped:
                raise LateError
            child = self._child(in_new=in_new)
            try:
                reply = await self._reply(child, work, told, limits)
            except BaseException:
                # Dead, late, or nobody waits for it any more.
                self._end(child)
                raise
            self._idle.append(child)
        if reply.error is not None:
            raise reply.error
        found: Found = reply.found
        return found

    def _child(self, *, in_new: bool) -> "_Child":
        """Return an idle child that is still alive, or a new one."""
        while self._idle:
            child = self._idle.pop()
            if child.is_alive() and not in_new:
                return child
            self._end(child)
            if in_new:
                break
        child = _Child(self._memory_bytes, self._prepare)
        self._all.add(child)
        return child

    def _end(self, child: "_Child") -> None:
        self._all.discard(child)
        child.kill()

    async def _reply(
        self, child: "_Child", work: Callable[..., object], told: tuple[object, ...], limits: Limits
    ) -> "_Reply":
        loop = asyncio.get_running_loop()
        was_used = child.is_used
        try:
            async with asyncio.timeout(limits.wall_seconds):
                reply = await loop.run_in_executor(self._threads, child.do, work, told, limits.cpu_seconds)
        except TimeoutError:
            raise LateError from None
        except _LostError:
            if self._is_stopped:
                raise LateError from None
            raise
        if isinstance(reply.error, MemoryError):
            # Earlier work may have left the child's memory in pieces.
            raise _LostError("out of memory", may_succeed=was_used)
        return reply


class _LostError(Exception):
    """There is no reply; `may_succeed` when the work may not be the reason, `is_killed` when something else is."""

    def __init__(self, reason: str, *, may_succeed: bool, is_killed: bool = False) -> None:
        super().__init__(reason)
        self.may_succeed = may_succeed
        self.is_killed = is_killed


class _Reply(NamedTuple):
    found: Any = None
    error: BaseException | None = None


class _Child:
    """One process; `do` runs in a thread."""

    def __init__(self, memory_bytes: int, prepare: Callable[[], None]) -> None:
        self.is_used = False
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, memory_bytes, prepare), daemon=True)
        try:
            self._process.start()
        finally:
            theirs.close()

    def do(self, work: Callable[..., object], told: tuple[object, ...], cpu_seconds: float) -> _Reply:
        """Hand the work over and wait for the reply.

        _LostError when there will be none, LateError when the process ended before it could begin.
        """
        try:
            if not self.is_used:
                self._pipe.recv()  # it is prepared
            self.is_used = True
            self._pipe.send((work, told, cpu_seconds))
            reply: _Reply = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        return reply

    def is_alive(self) -> bool:
        """Tell whether the process is still there."""
        return self._process.is_alive()

    def kill(self) -> None:
        """End the process, which ends `do` too."""
        self._process.kill()

    def join(self) -> None:
        """Wait until the process is gone."""
        self._process.join(_DEATH_SECONDS)

    def _death(self) -> Exception:
        self.join()
        self._pipe.close()
        if not self.is_used:
            return LateError()
        code = self._process.exitcode
        return _LostError(f"ended with {code}", may_succeed=code != -signal.SIGXCPU, is_killed=code == -signal.SIGKILL)


def _serve(pipe: Connection, memory_bytes: int, prepare: Callable[[], None]) -> None:
    """Do the work that comes, until the parent ends."""
    os.setpgid(0, 0)  # Ctrl-C is for the parent: it ends us when it is done
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    # When the parent has ended, so do we.
    with suppress(EOFError, OSError):
        pipe.send(None)
        while True:
            work, told, cpu_seconds = pipe.recv()
            pipe.send_bytes(_pickled(_done(work, told, cpu_seconds)))


def _done(work: Callable[..., object], told: tuple[object, ...], cpu_seconds: float) -> _Reply:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    # The kernel ends us with SIGXCPU then: an exception could not stop a decoder that hangs in native code.
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(process_time() + cpu_seconds), hard))
    try:
        return _Reply(found=work(*told))
    except MemoryError:
        # A library's own kind would have to be imported by the parent.
        return _Reply(error=MemoryError())
    except Exception as error:  # noqa: BLE001 - the parent raises it
        error.add_note(traceback.format_exc())
        return _Reply(error=error)


def _pickled(reply: _Reply) -> bytes:
    """Return the reply as bytes that the parent can read, or an error that says why not."""
    try:
        content = pickle.dumps(reply)
        pickle.loads(content)  # noqa: S301 - it is ours: some exceptions can be written, but not read
    except Exception as error:  # noqa: BLE001 - anything can be wrong with an object
        return pickle.dumps(_Reply(error=TypeError(f"no reply can be sent: {error!r}; {reply!r:.2000}")))
    return content


def _address_space() -> int:
    """Return how many bytes of addresses this process has (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
