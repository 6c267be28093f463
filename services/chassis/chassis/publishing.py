"""What the core of a service asks of the broker; `chassis.rabbitmq` does it."""

from typing import Protocol

from contracts.events import Event


class Publisher(Protocol):
    """Takes events."""

    async def publish(self, event: Event) -> None:
        """Return once the event is safe in every queue for its type; BackEndError when it is not."""


class Broker(Publisher, Protocol):
    """Takes events, and gives them to this process."""

    async def consumes(self) -> bool:
        """Tell whether this process takes in what the broker has for it."""
