"""The analyzer-bridge with stand-ins for what it talks to: its collection, the analysis server and the broker."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from analyzer_bridge.analysis import Analysis
from analyzer_bridge.bridge import Bridge
from analyzer_bridge.errors import AnalysisServerBusyError
from analyzer_bridge.room import Room
from analyzer_bridge.subscribers import subscribe
from chassis.subscribing import Delivery
from contracts import topology
from contracts.events import Event, Reference
from tests.support.analyses import Analyses
from tests.support.queues import Message, Queues
from tests.unit.stories import JOB_ID

TIMEOUT = timedelta(seconds=600)
FIRST = Delivery()
AGAIN = Delivery(repeated=True)
"""A message that was here before: redelivered, or back from a retry queue."""
REDRIVEN = Delivery(redriven=True)
REDRIVEN_AGAIN = Delivery(redriven=True, repeated=True)


class Server:
    """The analysis server; `answers` are what its next calls raise, `meanwhile` happens before each answer.

    It counts how many requests are `open`, were open at the `most`, and were `not_taken`.
    """

    def __init__(self, *answers: Exception | None) -> None:
        self.asked: list[tuple[str, str, str, int]] = []
        self.compared_with: list[Reference | None] = []
        self.answers = list(answers)
        self.meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None
        self.room: Callable[[], bool] | None = None
        """Whether it has room for one more, if that is limited."""
        self.away_seconds = 0.0
        self.open = self.most = self.not_taken = 0

    def away_for(self) -> float:
        return self.away_seconds

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        self.asked.append((job_id, token_id, s3_url, attempt))
        self.compared_with.append(reference)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            if self.meanwhile:
                await self.meanwhile()
            await asyncio.sleep(0)
        finally:
            self.open -= 1
        if self.room is not None and not self.room():
            self.not_taken += 1
            raise AnalysisServerBusyError("answered 503")
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            self.not_taken += 1
            raise answer


class World:
    """A bridge with its stand-ins; `replica` gives another one on the same collection."""

    def __init__(self, *answers: Exception | None, attempts: int = 3, limit: int | None = None) -> None:
        self.analyses = Analyses()
        self.server = Server(*answers)
        self.room = Room(limit)
        self._attempts = attempts
        self._limit = limit
        self.bridge = self.replica(room=self.room)

    def replica(self, version: str = "1", room: Room | None = None) -> Bridge:
        return Bridge(
            self.analyses,
            self.server,
            Room(self._limit) if room is None else room,
            timeout=TIMEOUT,
            attempts=self._attempts,
            version=version,
        )

    async def time_out(self) -> Event | None:
        """Let the deadline pass and the bridge notice, and ask again unless it gives up."""
        self.analyses.pass_deadline(JOB_ID)
        (late,) = await self.overdue()
        told = await self.bridge.pursue(late)
        return await self.ask_waiting() if told is None else told

    async def ask_waiting(self) -> Event | None:
        """Let the time of the next try come, and the bridge ask for the one that waits."""
        self.analyses.pass_deadline(JOB_ID)
        (due,) = await self.due()
        return await self.bridge.ask_waiting(due)

    async def overdue(self) -> list[Analysis]:
        """What was asked for and has passed its deadline."""
        return await self.analyses.overdue(datetime.now(UTC), 10)

    async def due(self) -> list[Analysis]:
        """What waits and is to be asked for."""
        return await self.analyses.due(datetime.now(UTC), 10, None)


class Broker(Queues):
    """The bridge's queues, handled by the bridge's own subscribers; `step` is called before each effect."""

    def __init__(self, bridge: Bridge, step: Callable[[], None] = lambda: None) -> None:
        super().__init__(routes=False)
        self._step = step
        self.serve(bridge)

    def serve(self, bridge: Bridge) -> None:
        """Hand messages to the subscribers of this bridge from now on."""
        subscribe(self, bridge)

    def tell(self, event: Event) -> None:
        """Put an event into the bridge's queue for it."""
        (queue,) = [one for one in topology.QUEUES if one.service == "analyzer-bridge" and isinstance(event, one.event)]
        self.put(queue, event)

    async def handle_next(self, queue: str | None = None) -> None:
        """Have the first message handled; it stays when its acknowledgement does not come."""
        message = self.queued[0]
        await super().handle_next(queue)
        try:
            self._step()
        except BaseException:
            message.redelivered = True
            self.queued.appendleft(message)
            raise

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Note the event."""
        self._step()
        await super().publish(event, redriven=redriven)

    async def pass_on(self, message: Message, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a message again elsewhere."""
        self._step()
        await super().pass_on(message, exchange, routing_key, headers)
