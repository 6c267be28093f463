"""Limits through the edge and both gateways: a client from outside meets them, the inner network does not."""

import asyncio
import itertools
import re

from tests.conftest import LIMIT_REQUESTS
from tests.support.sori import Sori
from tests.support.waiting import until

NUMBERS = itertools.count(1)
ROOM_SECONDS = 20
"""How much of a minute has to be left for a flood."""


async def at_a_minutes_beginning(sori: Sori, address: str) -> None:
    async def looked() -> bool:
        answer = await sori.client.get(f"{sori.url}/openapi.json", headers={"X-Forwarded-For": address})
        told = re.search(r"t=(\d+)", answer.headers["ratelimit"])
        assert told is not None
        return int(told[1]) > ROOM_SECONDS

    await until(looked, "most of a minute is left", every_seconds=0.5)


async def test_a_flood_gets_what_it_may_have_over_both_gateways(sori: Sori) -> None:
    await at_a_minutes_beginning(sori, "198.51.100.1")
    headers = {"X-Forwarded-For": "203.0.113.1"}
    limit = asyncio.Semaphore(8)

    async def ask() -> int:
        async with limit:
            answer = await sori.client.get(f"{sori.url}/openapi.json", headers=headers)
            if answer.status_code == 429:
                assert answer.json()["code"] == "too_many_requests"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            return answer.status_code

    statuses = await asyncio.gather(*(ask() for _ in range(2 * LIMIT_REQUESTS)))
    assert set(statuses) == {200, 429}
    assert LIMIT_REQUESTS * 0.9 <= statuses.count(200) <= LIMIT_REQUESTS * 1.1
    inner = await sori.client.get(f"{sori.url}/openapi.json")
    assert inner.status_code == 200
    assert "ratelimit" not in inner.headers
