"""Databases for one test each on the stack's MongoDB, and how MongoDB carried out the operations on them."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient

from local_stack.stack import Stack

Entry = dict[str, Any]
ALL_OPERATIONS = 2


@asynccontextmanager
async def own_database(stack: Stack) -> AsyncIterator[str]:
    """The address of a new database, which is removed at the end."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    url = stack.settings["MONGODB_URL"].replace("/sori?", f"/{name}?")
    assert name in url
    yield url
    async with AsyncMongoClient[dict[str, Any]](url) as mongodb:
        await mongodb.drop_database(name)


@asynccontextmanager
async def profiled(url: str) -> AsyncIterator[list[Entry]]:
    """Note every operation on the database while the block runs; the list is filled at its end."""
    entries: list[Entry] = []
    async with AsyncMongoClient[dict[str, Any]](url) as mongodb:
        database = mongodb.get_default_database()
        await database.command("profile", ALL_OPERATIONS)
        try:
            yield entries
        finally:
            await database.command("profile", 0)
        entries += [entry async for entry in database["system.profile"].find()]


def stages(plan: Any) -> Iterator[str]:
    """The stages of a query plan that was carried out."""
    if isinstance(plan, list):
        for part in plan:
            yield from stages(part)
    elif isinstance(plan, dict):
        if "stage" in plan:
            yield plan["stage"]
        for part in plan.values():
            yield from stages(part)
