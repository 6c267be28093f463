"""The worker processes that analyse. The pool survives the crash of a worker, and no worker outlives this process."""

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import structlog

from analysis_server.errors import AnalysisError
from analysis_server.job import Part, Script
from analysis_server.omissions import Warnings

_log = structlog.get_logger()

# Forking a process that runs an event loop and threads is unsafe; a spawned worker is also a child that we can end.
_CONTEXT = multiprocessing.get_context("spawn")

_DEATH_SECONDS = 5.0
"""How long a killed worker may take to be gone."""


class Workers:
    """A fixed number of processes, each analysing one recording at a time."""

    def __init__(self, count: int, max_audio_seconds: float, max_analysis_seconds: int) -> None:
        self._count = count
        self._limits = (max_audio_seconds, max_analysis_seconds)
        self._pool: ProcessPoolExecutor | None = None
        self._one_suspect = asyncio.Lock()

    async def start(self) -> None:
        """Start the processes and return when they run; raises BrokenProcessPool if they cannot."""
        pool, loop = _new_pool(self._count), asyncio.get_running_loop()
        # A pool starts a process only for a task that finds none idle, so give it one task per process all at once.
        await asyncio.gather(*(loop.run_in_executor(pool, os.getpid) for _ in range(self._count)))
        self._pool = pool

    @property
    def are_up(self) -> bool:
        """Say whether a recording could be analysed now."""
        return self._pool is not None

    async def analyse(self, path: Path, scripts: Sequence[Script], reference: bytes | None) -> dict[str, Any]:
        """Return the result object of the recording at `path`; `reference` is a `Voice` as bytes.

        Raises AnalysisError when the recording is not usable, `worker_crashed` included.
        """
        result: dict[str, Any] = await self._do(_analyse, path, scripts, reference)
        return result

    async def understand(self, files: Mapping[Part, Path], scripts: Sequence[Script]) -> tuple[bytes | None, Warnings]:
        """Return the voice that a reference's files give, as bytes, and warnings; raises AnalysisError as above."""
        understood: tuple[bytes | None, Warnings] = await self._do(_understand, files, scripts)
        return understood

    def stop(self) -> None:
        """End every worker at once, whatever it is doing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        children = multiprocessing.active_children()
        for process in children:
            process.kill()
        for process in children:
            process.join(_DEATH_SECONDS)

    async def _do(self, work: Callable[..., Any], *told: Any) -> Any:
        """Run `work` in a worker process and return what it returns.

        When a worker dies, the pool breaks and all tasks in it fail, whichever was the cause. Each is then tried once
        more in a process of its own, one after the other, so only a recording that kills its own worker fails.
        """
        pool = self._pool
        assert pool is not None  # noqa: S101 - start() comes first
        try:
            return await self._run(pool, work, told)
        except BrokenProcessPool:
            self._replace(pool)
        async with self._one_suspect:
            return await self._run_alone(work, told)

    async def _run(self, pool: ProcessPoolExecutor, work: Callable[..., Any], told: tuple[Any, ...]) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(pool, partial(work, *told, *self._limits))

    async def _run_alone(self, work: Callable[..., Any], told: tuple[Any, ...]) -> Any:
        pool = _new_pool(1)
        try:
            return await self._run(pool, work, told)
        except BrokenProcessPool:
            sentence = "The analysis of this recording ran out of time or memory, twice, and was given up."
            raise AnalysisError("worker_crashed", sentence) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        """Replace a broken pool by a new one, once, however many tasks find it broken."""
        if self._pool is broken:
            _log.error("worker-died")
            self._pool = _new_pool(self._count)
            broken.shutdown(wait=False, cancel_futures=True)


def _new_pool(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, mp_context=_CONTEXT, initializer=_become_worker)


def _become_worker() -> None:
    """Leave the server's process group so that its Ctrl-C does not end us, end when the server ends, and warm up."""
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import analysis_server.analysis  # noqa: PLC0415 - only workers pay for Praat and its like: 80 MB and 0.3 s
    import analysis_server.reference  # noqa: F401, PLC0415 - as above


def _analyse(
    path: Path, scripts: Sequence[Script], reference: bytes | None, max_seconds: float, time_limit_s: int
) -> dict[str, Any]:
    from analysis_server.analysis import analyse  # noqa: PLC0415 - as above
    from analysis_server.voice import Voice  # noqa: PLC0415 - as above

    voice = Voice.from_bytes(reference) if reference else None
    return analyse(path, scripts, voice, max_seconds, time_limit_s)


def _understand(
    files: Mapping[Part, Path], scripts: Sequence[Script], max_seconds: float, time_limit_s: int
) -> tuple[bytes | None, Warnings]:
    from analysis_server.reference import understand  # noqa: PLC0415 - as above

    return understand(files, scripts, max_seconds, time_limit_s)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
