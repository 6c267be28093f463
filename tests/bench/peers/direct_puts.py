"""The yardstick for accepting small uploads: the same bytes put straight into the same S3, as a process.

Run as `python -m tests.bench.peers.direct_puts PLAN` with the S3 settings in the environment. It signs an address for
each object beforehand, as a front end would be given one, prints `ready`, waits for a line, puts every object with the
load client's HTTP library, prints JSON and stays until standard input closes.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import boto3
import uvloop
from botocore.config import Config

from tests.bench.peers.direct_parts import PREFIX
from tests.support.recordings import wav_of_size


@dataclass(frozen=True)
class PutPlan:
    """How much to put: `puts` objects of `size_bytes`, `at_once` of them at any time."""

    puts: int
    at_once: int
    size_bytes: int
    seed: int


def signed_addresses(plan: PutPlan) -> list[str]:
    """An address for each object, to which anybody can put it."""
    s3: Any = boto3.client(
        "s3",
        endpoint_url=os.environ.get("S3_ENDPOINT_URL"),
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        config=Config(signature_version="s3v4"),
    )
    places = ({"Bucket": os.environ["S3_BUCKET_NAME"], "Key": f"{PREFIX}{plan.seed}-{n}"} for n in range(plan.puts))
    return [s3.generate_presigned_url("put_object", Params=place) for place in places]


async def put_all(
    addresses: list[str], bodies: list[bytes], at_once: int, session: aiohttp.ClientSession
) -> list[float]:
    """Put every object; return the ms that each took. Raises aiohttp's errors."""
    took: list[float] = []

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            begun = time.perf_counter()
            async with session.put(addresses[number], data=bodies[number]) as answer:
                answer.raise_for_status()
                await answer.read()
            took.append((time.perf_counter() - begun) * 1000)

    numbers = iter(range(len(addresses)))
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work(numbers))
    return took


async def _run(plan: PutPlan) -> None:
    addresses = signed_addresses(plan)
    bodies = [wav_of_size(plan.size_bytes, plan.seed * 1_000_000 + number) for number in range(plan.puts)]
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, requote_redirect_url=False) as session:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps({"put_ms": await put_all(addresses, bodies, plan.at_once, session)}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    uvloop.run(_run(PutPlan(**json.loads(sys.argv[1]))))
