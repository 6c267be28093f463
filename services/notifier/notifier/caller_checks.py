"""Ends the streams of callers who have logged out, and of those whose credential has expired or was revoked."""

from collections.abc import Collection
from typing import Protocol

from chassis.identity.caller import Caller
from chassis.periodic import Periodic
from notifier.hub import Hub

LOOK_SECONDS = 15.0
"""With the time for which chassis.identity trusts a credential, this keeps under the minute that is promised."""
MOST_AT_ONCE = 1000
"""The most callers that one question to MongoDB is about."""


class Credentials(Protocol):
    """What stands of credentials; `chassis.identity.identity.Identity` implements it."""

    async def over(self, callers: Collection[Caller]) -> set[Caller]:
        """Return those of the callers whose credential does not count any more."""


class CallerChecks:
    """Looks at who has streams open, for as long as they are."""

    def __init__(self, hub: Hub, credentials: Credentials, look_seconds: float = LOOK_SECONDS) -> None:
        self._hub = hub
        self._credentials = credentials
        self._looking = Periodic(self.look, seconds=look_seconds, waiting="streams' callers are not looked at")

    def start(self) -> None:
        """Begin to look."""
        self._looking.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._looking.stop()

    async def look(self) -> None:
        """End the streams of callers who count no more. Raises what MongoDB raises; then all streams go on."""
        callers = list(self._hub.callers())
        for start in range(0, len(callers), MOST_AT_ONCE):
            if over := await self._credentials.over(callers[start : start + MOST_AT_ONCE]):
                self._hub.send_away(over)
