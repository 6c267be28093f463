"""The broker as the core of a service sees it; `chassis.rabbitmq` implements it."""

from typing import Protocol

from contracts.events import Event


class Publisher(Protocol):
    """Publishes events."""

    async def publish(self, event: Event) -> None:
        """Return once the event is stored in every queue for its type; BackEndError when it is not."""


class Broker(Publisher, Protocol):
    """Publishes events, and delivers them to this process."""

    async def consumes(self) -> bool:
        """Tell whether this process receives messages from all of its queues."""
