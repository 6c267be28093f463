"""Waiting for a fact, with a limit: what tests do instead of sleeping."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")

LIMIT_SECONDS = 30.0
LOOK_EVERY_SECONDS = 0.03


async def until(
    look: Callable[[], Awaitable[Found | None]],
    what: str,
    *,
    limit_seconds: float = LIMIT_SECONDS,
    every_seconds: float = LOOK_EVERY_SECONDS,
) -> Found:
    """Look again and again until something true is found, and return it; AssertionError says `what` never came."""
    limit = time.monotonic() + limit_seconds
    while not (found := await look()):
        assert time.monotonic() < limit, f"not within {limit_seconds:g} s: {what}; last seen: {found!r}"
        await asyncio.sleep(every_seconds)
    return found


async def until_true(fact: Callable[[], bool], what: str, *, limit_seconds: float = LIMIT_SECONDS) -> None:
    """The same for a fact that can be had without waiting."""

    async def look() -> bool:
        return fact()

    await until(look, what, limit_seconds=limit_seconds)
