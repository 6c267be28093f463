"""Batching under load: items that arrive while one batch is under way form the next batch."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

MOST = 100
"""The most items in one batch."""


class Batches(Generic[Item, Answer]):
    """Turns single questions into batches; a question that comes alone is asked at once."""

    def __init__(self, ask: Callable[[list[Item]], Awaitable[list[Answer]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def answer(self, item: Item) -> Answer:
        """Return the answer to `item`; raises what asking for its batch raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                answers = await self._ask([item for item, _ in batch])
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - every caller in the batch is told
                # A driver may cancel a task that waits on a lost connection; nothing else cancels this one.
                told = error if isinstance(error, Exception) else ConnectionError("the connection was lost")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(told)
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        self._asking = None
