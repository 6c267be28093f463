"""What may go wrong: processes that die between any two effects, and back ends that go away at such a moment."""

import asyncio
import inspect
from collections.abc import Callable
from random import Random
from typing import Any, Literal, TypeVar, cast

from chassis.errors import AwayError, BackEndError

BackEnd = Literal["MongoDB", "RabbitMQ", "S3", "analysis server"]
Fault = Literal["death", "MongoDB", "RabbitMQ", "S3"]
Service = Literal["gateway", "uploader", "analyzer-bridge", "notifier"]
T = TypeVar("T")


TURNS = (0, 0, 1, 2, 8)
"""How many turns of the loop a step may take."""


class KilledError(BaseException):
    """The process is gone, so nothing may catch this."""


class Faults:
    """What is away now, and what happens after how many more steps; all processes count their steps here."""

    def __init__(self, random: Random, happened: Callable[[Fault], None]) -> None:
        self.away: set[BackEnd] = set()
        self._random = random
        self._happened = happened
        self._next: tuple[Fault, int] | None = None

    def plan(self, fault: Fault, steps: int) -> None:
        """Have this happen before the step after so many more."""
        self._next = fault, steps

    def forget_plan(self) -> None:
        """Have nothing happen that has not yet."""
        self._next = None

    async def step(self, process: "Process", back_end: BackEnd) -> None:
        """Let others run, then let happen what is due; raises when this process or the back end is gone."""
        for _ in range(self._random.choice(TURNS)):
            await asyncio.sleep(0)
        if process.is_alive and self._next is not None:
            fault, steps = self._next
            self._next = (fault, steps - 1) if steps else None
            if not steps:
                self._happened(fault)
                if fault == "death":
                    process.is_alive = False
                else:
                    self.away.add(fault)
        if not process.is_alive:
            raise KilledError
        if back_end in self.away:
            raise BackEndError(back_end, "down") if back_end == "RabbitMQ" else AwayError(back_end, "down")


class Process:
    """A replica of a service, for as long as it is alive."""

    def __init__(self, service: Service, faults: Faults) -> None:
        self.service = service
        self.is_alive = True
        self._faults = faults

    async def step(self, back_end: BackEnd) -> None:
        """Take a step, before and after each effect."""
        await self._faults.step(self, back_end)

    def reaching(self, back_end: BackEnd, stand_in: T) -> T:
        """Return the stand-in as this process reaches it: it may fail before each of its effects, and after it."""
        return cast("T", _Reached(self, back_end, stand_in))


class _Reached:
    def __init__(self, process: Process, back_end: BackEnd, stand_in: object) -> None:
        self._process = process
        self._back_end = back_end
        self._stand_in = stand_in

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stand_in, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def reached(*args: Any, **kwargs: Any) -> Any:
            await self._process.step(self._back_end)
            answer = await found(*args, **kwargs)
            await self._process.step(self._back_end)
            return answer

        return reached
