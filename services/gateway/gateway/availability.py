"""Whether the back ends answer: asked before a request's body is read, so that a hopeless upload is refused at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from chassis.errors import AwayError

Check = Callable[[], Awaitable[bool]]

CHECK_SECONDS = 1.0
"""How long a back end may take to answer; one that hangs is as good as down."""
REMEMBERED_SECONDS = 1.0
"""How long a good answer counts. A missing answer is not remembered: the next request may find the outage over."""


class Availability:
    """Tells whether back ends answer; requests that come at the same time share one question."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._back_ends = {name: _BackEnd(check) for name, check in checks.items()}

    async def require(self, *names: str) -> None:
        """Return when all of these back ends answer; AwayError, within CHECK_SECONDS, when one does not."""
        answers = await asyncio.gather(*(self._back_ends[name].is_up() for name in names))
        for name, up in zip(names, answers, strict=True):
            if not up:
                raise AwayError(name, "no answer")

    def seen(self, *names: str) -> None:
        """Note that these back ends have just done their work, so that under load they are not asked."""
        for name in names:
            self._back_ends[name].seen()


class _BackEnd:
    def __init__(self, check: Check) -> None:
        self._check = check
        self._up = False
        self._known_until = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def is_up(self) -> bool:
        if time.monotonic() >= self._known_until:
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
            # Not awaited directly: that would cancel the question for all when one request is cancelled.
            await asyncio.wait([self._asking])
        return self._up

    def seen(self) -> None:
        self._up = True
        self._known_until = time.monotonic() + REMEMBERED_SECONDS

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                up = await self._check()
        except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever a driver raises, or cancels, means that it is down
            up = False
        self._asking = None
        if up:
            self.seen()
        elif time.monotonic() >= self._known_until:  # a slow check does not outweigh work that was done meanwhile
            self._up = False
