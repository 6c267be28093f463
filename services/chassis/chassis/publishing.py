"""The broker as the core of a service sees it; `chassis.rabbitmq` implements it."""

from datetime import datetime
from typing import Protocol

from contracts import topology
from contracts.events import Event


class Publisher(Protocol):
    """Publishes events."""

    async def publish(self, event: Event, *, redriven: bool = False) -> None:
        """Return once the broker has stored the event; BackEndError when it may not have.

        A queue that is missing does not get it, and nobody is told. What was not handled is told again by whoever
        knows that it is not done. `redriven` says that this is such a repeat: subscribers try it once.
        """

    async def redrive(self, event: Event, queue: topology.Queue) -> None:
        """Put a repeat of an event into one queue alone; it is tried once. BackEndError as for `publish`."""


class Broker(Publisher, Protocol):
    """Publishes events, and delivers them to this process."""

    async def consumes(self) -> bool:
        """Tell whether this process receives messages from all of its queues."""

    def consuming_since(self) -> datetime | None:
        """Return since when this process has received messages from all of its queues; None while it does not."""
