"""Asks for the analyses that wait, of all owners in turn. MongoDB keeps them, so any replica may ask."""

import asyncio
from datetime import UTC, datetime

from analyzer_bridge.analysis import Analysis
from analyzer_bridge.bridge import Analyses, AnalysisServer, Bridge
from analyzer_bridge.pursuing import pursue
from analyzer_bridge.room import Room
from chassis.periodic import Periodic
from chassis.publishing import Publisher

AT_ONCE = 32
"""Analyses asked for at once."""
ROUND_SECONDS = 1.0
"""How long a round waits for its answers, so that one request that hangs does not hold up the others."""
COUNTED = 1000
"""So many waiting analyses are counted, no more."""


class Waiting:
    """Asks in rounds, whenever it is woken: each for as many as there is room for, and on while a round was full."""

    def __init__(
        self, bridge: Bridge, analyses: Analyses, server: AnalysisServer, publisher: Publisher, room: Room
    ) -> None:
        self._bridge = bridge
        self._analyses = analyses
        self._server = server
        self._publisher = publisher
        self._room = room
        self._open: set[asyncio.Task[None]] = set()
        self._count = 0
        self._last_owner: str | None = None
        self._rounds = Periodic(self._ask_when_woken, seconds=0.0, waiting="analyses wait", at_once=True)

    def start(self) -> None:
        """Begin to ask whenever the room wakes it."""
        self._rounds.start()

    async def stop(self, seconds: float) -> None:
        """Begin nothing more, and let what is being asked for end, for at most `seconds`."""
        await self._rounds.stop()
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=seconds)
            for task in late:
                task.cancel()

    def warnings(self) -> list[str]:
        """Return a warning for /health when analyses wait for a server that is away, as the last look found it."""
        more = "or more " if self._count == COUNTED else ""
        return [f"{self._count} {more}recordings wait for the analysis server"] if self._count else []

    async def _ask_when_woken(self) -> None:
        await self._room.woken()
        while await self._ask_a_round():
            pass

    async def _ask_a_round(self) -> bool:
        """Ask for those whose turn it is; tell whether more were due than there were places."""
        if len(self._open) >= AT_ONCE:
            await asyncio.wait(self._open, timeout=ROUND_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        away = self._server.away_for() > 0
        places = 0 if away else min(AT_ONCE - len(self._open), self._room.free)
        self._room.begin_look()
        due = await self._analyses.due(datetime.now(UTC), places + 1, self._last_owner)
        self._room.left_over(len(due) > places)
        self._count = await self._analyses.count_waiting(COUNTED) if away or self._room.rests else 0
        if not due[:places]:
            return False
        self._last_owner = due[:places][-1].owner
        begun = {asyncio.create_task(self._ask(analysis)) for analysis in due[:places]}
        self._open |= begun
        for task in begun:
            task.add_done_callback(self._open.discard)
        await asyncio.wait(begun, timeout=ROUND_SECONDS)
        return len(due) > places

    async def _ask(self, analysis: Analysis) -> None:
        await pursue(analysis, self._bridge.ask_waiting, self._bridge, self._publisher)
