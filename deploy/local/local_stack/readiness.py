"""Waits until every part of a stack is ready, or says which one is not, and why."""

import threading
import time
from collections import defaultdict
from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

from local_stack.errors import PartFailedError
from local_stack.part import NotReadyError, Part
from local_stack.supervision import Supervisor


class Report(Protocol):
    """Is told what happens while a stack comes up."""

    def ready(self, part: Part, seconds: float) -> None:
        """Report that a part is ready, and how many seconds that took."""

    def stopping(self) -> None:
        """Report that the stack does not come up, and that everything is being stopped again."""


class Silence:
    """A report that says nothing."""

    def ready(self, part: Part, seconds: float) -> None:
        """Do nothing."""

    def stopping(self) -> None:
        """Do nothing."""


MOST_STARTS = 3
"""A part that was started more often than this while the stack comes up will not get ready."""
LOG_LINES = 15


class Readiness:
    """One wait for some parts, for `timeout` seconds at most."""

    def __init__(self, parts: Collection[Part], supervisor: Supervisor, logs: Path, timeout: float) -> None:
        self._parts = parts
        self._supervisor = supervisor
        self._logs = logs
        self._began = time.monotonic()
        self._timeout = timeout
        self._over = threading.Event()
        self._lacks: defaultdict[str, str] = defaultdict(lambda: "it does not answer")
        self._starts: defaultdict[str, set[int]] = defaultdict(set)

    def wait(self, report: Report) -> None:
        """Returns when all are ready. Raises PartFailedError for the first that will not be."""
        with ThreadPoolExecutor(len(self._parts)) as pool:
            try:
                waits = {pool.submit(self._wait_for, part): part for part in self._parts}
                self._collect(waits, report)
            finally:
                self._over.set()

    def _collect(self, waits: dict[Future[float], Part], report: Report) -> None:
        pending = set(waits)
        while pending:
            done, pending = wait(pending, timeout=0.3, return_when=FIRST_COMPLETED)
            for future in done:
                report.ready(waits[future], future.result())
            for part in (part for future, part in waits.items() if future in pending):
                self._refuse_crashing(part)
                if self._seconds() > self._timeout:  # names the first: the others may be waiting for it
                    raise self._failure(part, f"is not ready after {self._timeout:.0f} s: {self._lacks[part.name]}")

    def _wait_for(self, part: Part) -> float:
        while not self._over.is_set():
            try:
                part.check_ready()
                break
            except NotReadyError as reason:
                self._lacks[part.name] = str(reason)
            self._over.wait(0.15)
        return self._seconds()

    def _refuse_crashing(self, part: Part) -> None:
        states = self._supervisor.states()
        if not states:
            raise self._failure(part, "cannot get ready: the process manager was stopped")
        state = states[part.name]
        self._starts[part.name].add(state.started)
        if state.name == "FATAL" or len(self._starts[part.name]) > MOST_STARTS:
            raise self._failure(part, "ends as soon as it is started")

    def _failure(self, part: Part, what: str) -> PartFailedError:
        log = self._logs / f"{part.name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        last = tuple(lines[-LOG_LINES:])
        return PartFailedError(f"{part.name} {what}. The end of {log}:", last)

    def _seconds(self) -> float:
        return time.monotonic() - self._began
