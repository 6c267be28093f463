"""The analyzer-bridge with stand-ins for what it talks to: its collection, the analysis server and the broker."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from analyzer_bridge.bridge import Bridge
from analyzer_bridge.subscribers import subscribe
from contracts import topology
from contracts.events import Event, Reference
from tests.support.analyses import Analyses
from tests.unit.stories import JOB_ID

TIMEOUT = timedelta(seconds=600)


class Server:
    """The analysis server; `answers` are what its next calls raise, `meanwhile` happens before each answer."""

    def __init__(self, *answers: Exception | None) -> None:
        self.asked: list[tuple[str, str, str, int]] = []
        self.compared_with: list[Reference | None] = []
        self.answers = list(answers)
        self.meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None
        self.away_seconds = 0.0

    def away_for(self) -> float:
        return self.away_seconds

    async def request(
        self, job_id: str, token_id: str, s3_url: str, attempt: int, reference: Reference | None = None
    ) -> None:
        self.asked.append((job_id, token_id, s3_url, attempt))
        self.compared_with.append(reference)
        if self.meanwhile:
            await self.meanwhile()
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer


class World:
    """A bridge with its stand-ins; `replica` gives another one on the same collection."""

    def __init__(self, *answers: Exception | None, attempts: int = 3) -> None:
        self.analyses = Analyses()
        self.server = Server(*answers)
        self._attempts = attempts
        self.bridge = self.replica()

    def replica(self, version: str = "1") -> Bridge:
        return Bridge(self.analyses, self.server, timeout=TIMEOUT, attempts=self._attempts, version=version)

    async def time_out(self) -> Event | None:
        """Let the deadline pass and the bridge notice."""
        self.analyses.pass_deadline(JOB_ID)
        (late,) = await self.bridge.overdue(10)
        return await self.bridge.pursue(late)


@dataclass
class Message:
    """A message in one of the bridge's queues; `waited_in` names the delay queues that it has been through."""

    queue: str
    body: bytes
    message_id: str = "id"
    content_type: str = "application/cloudevents+json"
    headers: dict[str, Any] = field(default_factory=dict)
    redelivered: bool = False
    waits: list[tuple[str, float]] = field(default_factory=list)


class Broker:
    """The bridge's queues in memory, handled by the bridge's own subscribers; `step` is called before each effect."""

    def __init__(self, bridge: Bridge, step: Callable[[], None] = lambda: None) -> None:
        self.published: list[Event] = []
        self.queued: deque[Message] = deque()
        self.dead: list[Message] = []
        self._step = step
        self.serve(bridge)

    def serve(self, bridge: Bridge) -> None:
        """Hand messages to the subscribers of this bridge from now on."""
        self._deliver: dict[str, Callable[[Any], Awaitable[None]]] = {}
        subscribe(self, bridge)

    def put(self, event: Event) -> None:
        """Put an event into the bridge's queue for it."""
        (queue,) = [one for one in topology.QUEUES if one.service == "analyzer-bridge" and isinstance(event, one.event)]
        self.queued.append(Message(queue.name, event.encode()))

    async def handle_next(self) -> None:
        """Have the first message handled; it stays when that does not end with its acknowledgement."""
        message = self.queued[0]
        await self._deliver[message.queue](message)
        self._step()
        self.queued.popleft()

    async def handle_all(self, most: int = 100) -> None:
        """Have messages handled until none is left."""
        for _ in range(most):
            if not self.queued:
                return
            await self.handle_next()
        raise AssertionError(f"still not done after {most} messages")

    def of(self, kind: type[Event]) -> list[Event]:
        """The published events of one kind."""
        return [event for event in self.published if isinstance(event, kind)]

    # What the bridge's subscribers ask of RabbitMQ.

    def subscribe(self, queue: topology.Queue, deliver: Callable[[Any], Awaitable[None]]) -> None:
        self._deliver[queue.name] = deliver

    async def publish(self, event: Event) -> None:
        self._step()
        self.published.append(event)

    async def pass_on(self, message: Message, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        self._step()
        passed = Message(message.queue, message.body, headers={**message.headers, **headers})
        seconds = next((delay.seconds for delay in topology.RETRY_DELAYS if delay.name == exchange), 0.0)
        passed.waits = [*message.waits, (exchange, seconds)]
        if routing_key.endswith(".dead"):
            self.dead.append(passed)
        else:
            self.queued.append(passed)
