"""Tasks that nobody waits for: the event loop itself keeps no task alive."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_running: set[asyncio.Task[None]] = set()


def in_background(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, whatever becomes of the caller."""
    task = asyncio.create_task(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
