"""Finds dead letters, puts them back into their queues, or throws them away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from contracts import topology
from contracts.events import Event
from sorictl.filters import Filters
from sorictl.letter import DeadLetter, Message, read, replay_headers, resumed

LOOKS = 5
LOOK_AGAIN_SECONDS = 0.4
"""How often, and how far apart, a missing letter is looked for: another command may have taken it to look at it."""


class Taken(Protocol):
    """A message that was taken, so nobody else has it now; unless it is removed, it goes back to the dead letters."""

    @property
    def message(self) -> Message:
        """The message."""

    async def remove(self) -> None:
        """Remove it from the dead letters for good."""


class Broker(Protocol):
    """What is needed of the broker that keeps the dead letters."""

    def waiting(self, queue: topology.Queue) -> AbstractAsyncContextManager[AsyncIterator[Taken]]:
        """Yield the queue's dead letters one after another; at the end, those not removed are given back."""

    async def put_back(self, queue: topology.Queue, message: Message, headers: Mapping[str, Any]) -> None:
        """Return once the message lies safely in its queue, with these headers."""

    async def publish(self, event: Event) -> None:
        """Return once the event lies safely in every queue bound to its type."""


class DeadLetters:
    """The dead letters of all queues. Only one message is in memory at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def find(self, filters: Filters, limit: int, found: Callable[[DeadLetter, Message], None]) -> bool:
        """Call `found` with the first `limit` that match, queue by queue, in order; tell whether there are more."""
        count = 0
        for queue in filters.queues:
            async with self._broker.waiting(queue) as waiting:
                async for taken in waiting:
                    letter = read(queue, taken.message)
                    if not filters.match(letter):
                        continue
                    if count == limit:
                        return True
                    count += 1
                    found(letter, taken.message)
        return False

    async def replay(self, letters: Sequence[DeadLetter], done: Callable[[DeadLetter], None]) -> None:
        """Put these back into their queues, in order, and resume their jobs; `done` is called with each.

        A crash in between may replay a letter twice, but loses none: a letter is removed last.
        """
        await self._each(letters, self._put_back, done)

    async def discard(self, letters: Sequence[DeadLetter], done: Callable[[DeadLetter], None]) -> None:
        """Throw these away; `done` is called with each."""
        await self._each(letters, _remove, done)

    async def _put_back(self, queue: topology.Queue, taken: Taken) -> None:
        await self._broker.put_back(queue, taken.message, replay_headers(taken.message.headers))
        event = resumed(queue, taken.message)
        if event is not None:
            await self._broker.publish(event)
        await taken.remove()

    async def _each(
        self,
        letters: Sequence[DeadLetter],
        act: Callable[[topology.Queue, Taken], Awaitable[None]],
        done: Callable[[DeadLetter], None],
    ) -> None:
        for queue in topology.QUEUES:
            # A count, not a set: a message that fails again at once after its replay is another dead letter, and stays.
            left = Counter(letter for letter in letters if letter.queue == queue.name)
            for look in range(LOOKS):
                if not left:
                    break
                if look:
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
                await self._take(queue, left, act, done)

    async def _take(
        self,
        queue: topology.Queue,
        left: Counter[DeadLetter],
        act: Callable[[topology.Queue, Taken], Awaitable[None]],
        done: Callable[[DeadLetter], None],
    ) -> None:
        async with self._broker.waiting(queue) as waiting:
            async for taken in waiting:
                letter = read(queue, taken.message)
                if letter not in left:
                    continue
                await act(queue, taken)
                done(letter)
                left[letter] -= 1
                left += Counter()  # drops the entries that have reached 0
                if not left:
                    return


async def _remove(_: topology.Queue, taken: Taken) -> None:
    await taken.remove()
