"""The yardstick for large uploads: the same bytes put straight into the same S3 by parts, as a process.

Run as `python -m tests.bench.peers.direct_parts PLAN` with the S3 settings in the environment. It prints `ready`, waits
for a line, prints JSON and ends, just as the load client does.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aioboto3
import uvloop
from botocore.config import Config

from tests.support.recordings import wav_blocks

PREFIX = "bench-direct-"
"""No folder: the S3 server here removes one that became empty while another object is being put into it."""


@dataclass(frozen=True)
class DirectPlan:
    """How much to put: `uploads` objects of `size_bytes`, all at once, each in parts of `part_bytes`."""

    uploads: int
    size_bytes: int
    seed: int
    part_bytes: int = 8 * 1024 * 1024


async def put_all(plan: DirectPlan, s3: Any) -> float:
    """Put every object; return the seconds from the first byte to the last object's completion."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(plan.uploads):
            group.create_task(_put(plan, s3, f"{PREFIX}{plan.seed}-{number}", plan.seed * 1_000_000 + number))
    return time.perf_counter() - begun


async def _put(plan: DirectPlan, s3: Any, key: str, seed: int) -> None:
    where = {"Bucket": os.environ["S3_BUCKET_NAME"], "Key": key}
    upload_id = (await s3.create_multipart_upload(**where))["UploadId"]
    parts: list[dict[str, Any]] = []
    part = BytesIO()

    async def flush() -> None:
        part.seek(0)
        number = len(parts) + 1
        answer = await s3.upload_part(**where, UploadId=upload_id, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        part.seek(0)
        part.truncate()

    for block in wav_blocks(plan.size_bytes, seed):
        part.write(block)
        if part.tell() >= plan.part_bytes:
            await flush()
    if part.tell():
        await flush()
    await s3.complete_multipart_upload(**where, UploadId=upload_id, MultipartUpload={"Parts": parts})


async def _run(plan: DirectPlan) -> None:
    config = Config(
        max_pool_connections=plan.uploads,
        request_checksum_calculation="when_required",  # the fastest that S3 accepts, as a yardstick should be
    )
    session = aioboto3.Session()
    endpoint, region = os.environ.get("S3_ENDPOINT_URL"), os.environ.get("AWS_REGION", "us-east-1")
    async with session.client("s3", endpoint_url=endpoint, region_name=region, config=config) as s3:
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps({"seconds": await put_all(plan, s3)}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    uvloop.run(_run(DirectPlan(**json.loads(sys.argv[1]))))
