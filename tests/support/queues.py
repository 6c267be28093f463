"""Queues in memory: what subscribers ask of the broker, for unit tests; it keeps the real one's promises."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from contracts import topology
from contracts.events import CONTENT_TYPE, Event


@dataclass
class Message:
    """A message in a queue; `waits` names the delay queues that it has been through, each with its seconds."""

    queue: str
    body: bytes
    message_id: str | None
    content_type: str = CONTENT_TYPE
    headers: dict[str, Any] = field(default_factory=dict)
    redelivered: bool = False
    waits: list[tuple[str, float]] = field(default_factory=list)


class Queues:
    """The queues of whoever subscribes; a message is handled when a test says so.

    With `routes`, what is published goes to the queues for its type, as with the real broker. Without, it is only
    noted, and the test decides what comes back.
    """

    def __init__(self, *, routes: bool = True) -> None:
        self.published: list[Event] = []
        self.passed: list[tuple[str, str, dict[str, Any]]] = []
        self.queued: deque[Message] = deque()
        self.dead: list[Message] = []
        self._routes = routes
        self._deliver: dict[str, Callable[[Any], Awaitable[None]]] = {}

    def put(self, queue: topology.Queue, event: Event, **headers: Any) -> None:
        """Put an event into a queue, as if it had been there before."""
        self.queued.append(Message(queue.name, event.encode(), event.id, headers=headers))

    async def handle_next(self, queue: str | None = None) -> None:
        """Have the first message handled, of all or of one queue; when that fails, it is first again."""
        index = next(index for index, message in enumerate(self.queued) if queue in {None, message.queue})
        message = self.queued[index]
        del self.queued[index]
        try:
            await self._deliver[message.queue](message)
        except BaseException:
            message.redelivered = True
            self.queued.appendleft(message)
            raise

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

    # What subscribers ask of the broker (chassis.subscribing.Subscribing).

    def subscribe(self, queue: topology.Queue, deliver: Callable[[Any], Awaitable[None]]) -> None:
        """Hand every message of `queue` to `deliver`."""
        self._deliver[queue.name] = deliver

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Keep the event, in every queue for its type that is subscribed to."""
        self.published.append(event)
        headers = {topology.REDRIVE_HEADER: 1} if redriven else {}
        for queue in topology.queues_for(event.type) if self._routes else ():
            if queue.name in self._deliver:
                self.put(queue, event, **headers)

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Put a repeat of the event into one queue."""
        self.put(queue, event, **{topology.REDRIVE_HEADER: 1})

    async def pass_on(self, message: Message, exchange: str, routing_key: str, headers: dict[str, Any]) -> None:
        """Publish a message again: through a delay queue to the queue that the routing key names, or straight there."""
        added = {**message.headers, **headers}
        self.passed.append((exchange, routing_key, added))
        seconds = next((delay.seconds for delay in topology.RETRY_DELAYS if delay.name == exchange), 0.0)
        again = Message(routing_key, message.body, message.message_id, message.content_type, added)
        again.waits = [*message.waits, (exchange, seconds)]
        (self.queued if routing_key in self._deliver else self.dead).append(again)

    def consuming_since(self) -> datetime | None:
        """Return since when messages are taken from the queues: always."""
        return datetime(2026, 1, 1, tzinfo=UTC)

    async def consumes(self) -> bool:
        """Tell whether messages are taken from the queues: always."""
        return True

    async def depths(self, names: Iterable[str]) -> dict[str, int]:
        """Return how many messages wait in each queue."""
        return {name: sum(message.queue == name for message in self.queued) for name in names}

    async def dead_letters(self) -> dict[str, int]:
        """Return how many messages were set aside from each queue."""
        names = [message.queue.removesuffix(".dead") for message in self.dead]
        return {name: names.count(name) for name in self._deliver}
