"""Moves what lies in queues of earlier versions to those that took their place, and removes what nobody uses any more.

Messages are copied before they are removed, so a crash moves one twice, but loses none. A queue is removed only when
nothing can come into it any more.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from contracts import topology
from sorictl.letter import HELD_IN_HEADER, Message

_DELIVERIES = ("x-delivery-count", "x-acquired-count")
"""The broker's counts of deliveries out of the old queue, which would pass for those out of the new one."""
_ROUTING_KEYS = {queue.name: queue.routing_key for queue in topology.QUEUES}


@dataclass(frozen=True)
class QueueState:
    """How many messages wait in a queue, and how many consumers it has."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class TakenOver:
    """What was done with an old queue; `stays_because` is None when it is gone."""

    old: str
    new: str
    moved: int
    stays_because: str | None


class Taken(Protocol):
    """A message that was taken, so nobody else has it now; unless it is removed, it goes back to its queue."""

    @property
    def message(self) -> Message:
        """The message."""

    async def remove(self) -> None:
        """Remove it from its queue for good."""


class Broker(Protocol):
    """What is needed of the broker."""

    async def state(self, queue: str) -> QueueState | None:
        """Return what a queue has, None when there is no such queue."""

    def taking(self, queue: str) -> AbstractAsyncContextManager[AsyncIterator[Taken]]:
        """Yield a queue's messages one after another; at the end, those not removed are given back."""

    async def move(self, message: Message, headers: Mapping[str, Any], new: str) -> None:
        """Return once the message lies safely in another queue, with these headers."""

    async def unbind(self, queue: str, event_type: str) -> None:
        """Let a queue get no more events of this type."""

    async def remove_queue(self, queue: str) -> None:
        """Delete a queue, whatever is in it."""

    async def remove_exchange(self, exchange: str) -> bool:
        """Delete an exchange; tell whether there was one."""


async def take_over(broker: Broker, retired: Mapping[str, str]) -> list[TakenOver]:
    """Move what lies in the old queues to the new ones, which are declared, and remove the old ones.

    `retired` has the new queue's name for each old one's; their dead letters are moved too. Old queues that are gone
    already are not in what is returned.
    """
    done: list[TakenOver] = []
    for old, new in retired.items():
        if await broker.state(old) is not None:
            await broker.unbind(old, _ROUTING_KEYS[new])
            done.append(await _taken_over(broker, old, new, {}))
        if await broker.state(f"{old}.dead") is not None:
            # The hold that a dead letter made is named after the queue that it came from.
            done.append(await _taken_over(broker, f"{old}.dead", f"{new}.dead", {HELD_IN_HEADER: old}, behind=old))
    return done


async def remove_exchanges(broker: Broker, retired: Iterable[str]) -> int:
    """Remove these exchanges; return how many there were."""
    return sum([await broker.remove_exchange(name) for name in retired])


async def _taken_over(
    broker: Broker, old: str, new: str, headers: Mapping[str, Any], behind: str | None = None
) -> TakenOver:
    moved = 0
    async with broker.taking(old) as waiting:
        async for taken in waiting:
            await broker.move(taken.message, {**headers, **_kept(taken.message.headers)}, new)
            await taken.remove()
            moved += 1
    stays_because = await _still_used(broker, old, behind)
    if stays_because is None:
        await broker.remove_queue(old)
    return TakenOver(old, new, moved, stays_because)


async def _still_used(broker: Broker, old: str, behind: str | None) -> str | None:
    """Say why something may still come into the queue, or be in somebody's hands; `behind` is where it comes from."""
    if behind is not None and await broker.state(behind) is not None:
        return f"{behind} is still there"
    state = await broker.state(old)
    if state is not None and state.consumers:
        return "a service of an earlier version consumes it"
    if state is not None and state.messages:
        return "something has just come into it"
    # Messages that wait for their next try go back to the queue that they came from.
    for delay in topology.RETRY_DELAYS:
        waiting = await broker.state(delay.name)
        if waiting is not None and waiting.messages:
            return "messages wait for their next try, perhaps in it"
    return None


def _kept(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in headers.items() if name not in _DELIVERIES}
