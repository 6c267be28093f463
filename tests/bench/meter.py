"""What processes cost: CPU time between two readings, and peak resident memory while something runs."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import psutil

Parts = Mapping[str, Iterable[int]]
"""The processes under measure: the pids of each part, by its name."""

MIB = 1024 * 1024
_QUIET_SHARE = 0.10
_LOOK_SECONDS = 0.5
_SAMPLES_PER_SEARCH = 25


def cpu_ms(parts: Parts) -> dict[str, float]:
    """CPU time so far, user and system, in ms: of each part's processes, with their descendants that are no other
    part's.
    """
    return {name: sum(map(_process_cpu_ms, processes)) for name, processes in _with_descendants(parts).items()}


def cpu_ms_since(parts: Parts, before: Mapping[str, float]) -> dict[str, float]:
    """CPU time of each part since a reading."""
    return {name: used - before.get(name, 0.0) for name, used in cpu_ms(parts).items()}


@dataclass(frozen=True)
class Machine:
    """CPU time of the whole machine so far, in ms: what programs here used, and what its host gave to others."""

    busy_ms: float
    stolen_ms: float

    @classmethod
    def now(cls) -> "Machine":
        """The figures since the machine started."""
        times = psutil.cpu_times()
        busy = times.user + times.nice + times.system + times.irq + times.softirq
        return cls(busy * 1000, times.steal * 1000)


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes and their descendants."""
    return _resident_bytes(_with_descendants({"": pids})[""])


def wait_until_quiet(parts: Parts, limit_seconds: float = 60.0) -> None:
    """Wait until all parts together use less than a tenth of a core, so that the work that a run leaves behind counts
    for that run and does not burden the next. Return after the limit in any case.
    """
    limit = time.monotonic() + limit_seconds
    while time.monotonic() < limit:
        before = cpu_ms(parts)
        time.sleep(_LOOK_SECONDS)
        if sum(cpu_ms_since(parts, before).values()) < _QUIET_SHARE * _LOOK_SECONDS * 1000:
            return


class PeakMemory:
    """Watches the resident memory of some parts, 50 times a second, while its block runs."""

    def __init__(self, parts: Parts, interval_seconds: float = 0.02) -> None:
        self.peak = {name: resident_bytes(pids) for name, pids in parts.items()}
        self.samples = 0
        self.seconds = 0.0
        self._parts = {name: list(pids) for name, pids in parts.items()}
        self._interval = interval_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def samples_per_second(self) -> float:
        """How often it really looked."""
        return self.samples / self.seconds if self.seconds else 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        begun = time.monotonic()
        processes: dict[str, list[psutil.Process]] = {}
        while not self._over.wait(self._interval):
            if self.samples % _SAMPLES_PER_SEARCH == 0:  # finding descendants reads all of /proc
                processes = _with_descendants(self._parts)
            for name, of_part in processes.items():
                self.peak[name] = max(self.peak[name], _resident_bytes(of_part))
            self.samples += 1
        self.seconds = time.monotonic() - begun


def _resident_bytes(processes: Iterable[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def _with_descendants(parts: Parts) -> dict[str, list[psutil.Process]]:
    """The processes of each part. The process manager is a part too, whose descendants are all the others."""
    children = defaultdict[int, list[psutil.Process]](list)
    alive: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["ppid"]):
        alive[process.pid] = process
        children[process.info["ppid"]].append(process)
    listed = {pid for pids in parts.values() for pid in pids}
    found: dict[str, list[psutil.Process]] = {}
    for name, pids in parts.items():
        of_part = [alive[pid] for pid in pids if pid in alive]
        for process in of_part:  # which grows meanwhile
            of_part += [child for child in children[process.pid] if child.pid not in listed]
        found[name] = of_part
    return found


def _process_cpu_ms(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    # Children that have ended are counted by their parent; those alive count for themselves.
    return float(times.user + times.system + times.children_user + times.children_system) * 1000
