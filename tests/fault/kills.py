"""Kills parts of a stack at random while it works, and finds out whether the victim had something in hand."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from contracts import topology
from local_stack import processes
from local_stack.stack import Stack
from tests.fault.crowd import User
from tests.support.front_end import FrontEnd
from tests.support.log_lines import LogLines

BACK_ENDS = ("analysis-server", "rabbitmq", "mongod", "s3")
REPLICAS = 2
WORK = {"event handled", "job-accepted"}
"""The events in the log that show that a part is at work."""
SEEN_BY = {"analyzer-bridge": "uploader", "notifier": "notifier", "analysis-server": "analysis-server"}
"""The service whose log shows that a part has work in hand. Other parts have it once an upload is accepted."""
BUSY_SECONDS = 20.0
"""How long to wait for work: after RabbitMQ was killed, the services need a while to connect again."""
LOOK_EVERY_SECONDS = 0.004


@dataclass
class Kill:
    """One kill, and what proves that the victim had something in hand."""

    part: str
    pids: list[int]
    at: datetime
    clock: float
    """The same moment on the event loop's clock."""
    burst: Sequence[User]
    under_way: int
    """How many jobs of the burst had not ended at that moment."""
    logs: Sequence[LogLines]
    """The logs of the victim's service, one per replica, from that moment on."""
    proof: str | None = None
    ready_seconds: float = 0.0

    @property
    def service(self) -> str:
        """The part without the number of its replica."""
        return service_of(self.part)

    def __str__(self) -> str:
        """The line for people."""
        verdict = f"valid: {self.proof}" if self.proof else "not valid: no proof that it had anything in hand"
        pids = f"pid {self.pids[0]}" if self.pids else "no process"
        time = self.at.strftime("%H:%M:%S.%f")[:-3]
        return f"{time}  kill -9 {self.part:18} {pids:12} ready again after {self.ready_seconds:4.1f} s; {verdict}"


class Kills:
    """Chooses the victims, kills them and counts the kills."""

    def __init__(self, stack: Stack, front_end: FrontEnd, seed: int, wanted: Mapping[str, int]) -> None:
        self._stack = stack
        self._front_end = front_end
        self._seed = seed
        self._rng = random.Random(seed)
        self._wanted = wanted
        self.done: list[Kill] = []

    @property
    def lacking(self) -> Counter[str]:
        """How many valid kills are still wanted, by service and back end."""
        return Counter(self._wanted) - self.valid

    @property
    def valid(self) -> Counter[str]:
        """How many kills counted, by service and back end."""
        return Counter(kill.service for kill in self.done if kill.proof)

    def choose(self) -> str:
        """The next victim: any part that still lacks kills, or any part at all when none does."""
        # A new generator for each kill: a kill that happens not to count changes little of what comes after it.
        self._rng = random.Random(f"{self._seed}/{len(self.done)}")
        services = self._rng.sample(sorted(self._wanted), len(self._wanted))
        service = next((name for name in services if name in self.lacking), services[0])
        return f"{service}-{self._rng.randint(1, REPLICAS)}" if service in topology.SERVICES else service

    async def kill(self, part: str, burst: Sequence[User]) -> Kill:
        """End a part in the midst of its work on the burst; returns when it is ready again."""
        pids = self._stack.pids(part)
        await self._until_busy(part, burst, self._rng.randint(1, 2))
        logs = self._logs(service_of(part))
        loop = asyncio.get_running_loop()
        under_way = sum(not user.heard for user in burst)
        kill = Kill(part, pids, datetime.now(UTC), loop.time(), burst, under_way, logs)
        processes.kill(pids, signal.SIGKILL)
        await asyncio.to_thread(self._stack.wait_until_ready, part)
        kill.ready_seconds = loop.time() - kill.clock
        self.done.append(kill)
        return kill

    def judge(self, kill: Kill) -> None:
        """Find out whether the victim had something in hand; call this once the proof had time to appear."""
        place = self.done.index(kill)
        kill.proof = proof(kill, self.done[place - 1] if place else None, self._front_end.broken)

    async def _until_busy(self, part: str, burst: Sequence[User], signs: int) -> None:
        """Return after `signs` signs that the part has work in hand, or when no more will come."""
        loop = asyncio.get_running_loop()
        limit, seen = loop.time() + BUSY_SECONDS, 0
        logs = self._logs(SEEN_BY.get(service_of(part)))
        while seen < signs and loop.time() < limit and not all(user.heard for user in burst):
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            if logs:
                seen += sum(line.get("event") in WORK for log in logs for line in log.new())
            else:
                seen = sum(user.job_id is not None for user in burst)

    def _logs(self, service: str | None) -> list[LogLines]:
        """The logs of every replica of a service, from now on."""
        return [LogLines(self._stack.log(part)) for part in self._stack.parts if service_of(part) == service]


def proof(kill: Kill, before: Kill | None, broken: Sequence[tuple[float, float]]) -> str | None:
    """What proves that the victim had something in hand; None when nothing does.

    - A service that takes messages: the broker delivered a message about a job of this very burst a second time. The
      burst began after all earlier victims were ready again, so only this victim can have had the message without
      acknowledging it. If the kill before this one, `before`, was of RabbitMQ, that may be the cause of the second
      delivery, so nothing is proven.
    - A gateway takes no messages. It had an upload in hand if a client's request that was open at the moment of the
      kill got no answer; `broken` are those requests.
    - A back end works for whatever job is under way.
    """
    if kill.service in BACK_ENDS:
        return f"{kill.under_way} new jobs were under way" if kill.under_way else None
    if kill.service == "gateway":
        cut = sum(began <= kill.clock <= ended for began, ended in broken)
        return f"{cut} uploads were cut off" if cut else None
    if before is not None and before.service == "rabbitmq":
        return None
    again = _redelivered(kill)
    return f"{again} messages were delivered again" if again else None


def service_of(part: str) -> str:
    """The part without the number of its replica."""
    name, _, number = part.rpartition("-")
    return name if number.isdigit() else part


def _redelivered(kill: Kill) -> int:
    burst = {user.job_id for user in kill.burst}
    lines = [line for log in kill.logs for line in log.new()]
    return sum(bool(line.get("redelivered")) and line.get("job_id") in burst for line in lines)
