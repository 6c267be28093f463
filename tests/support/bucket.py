"""The bucket as tests look into it: which keys there are, and which multipart uploads were left open."""

from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from pymongo import AsyncMongoClient

from tests.support.waiting import until


class Bucket:
    """One bucket, and the job documents that say what of it is half-done; somebody else opened the clients."""

    def __init__(self, s3: Any, name: str, jobs: Any) -> None:
        self.name = name
        self._s3 = s3
        self._jobs = jobs

    async def keys(self, prefix: str = "") -> set[str]:
        """Every key with this prefix."""
        found: set[str] = set()
        async for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            found |= {entry["Key"] for entry in page.get("Contents", [])}
        return found

    async def open_uploads(self) -> set[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        try:
            answer = await self._s3.list_multipart_uploads(Bucket=self.name)
        except self._s3.exceptions.NoSuchUpload:  # how rclone says that there are none
            return set()
        return {upload["Key"] for upload in answer.get("Uploads", [])}

    async def read(self, key: str) -> bytes:
        """An object's bytes."""
        answer = await self._s3.get_object(Bucket=self.name, Key=key)
        async with answer["Body"] as body:
            content: bytes = await body.read()
        return content

    async def head(self, key: str) -> dict[str, Any]:
        """What S3 says about an object."""
        found: dict[str, Any] = await self._s3.head_object(Bucket=self.name, Key=key)
        return {name: value for name, value in found.items() if name != "ResponseMetadata"}

    async def put(self, key: str, content: bytes, *, age: timedelta = timedelta(0)) -> None:
        """Write an object as if that had been `age` ago."""
        # rclone takes this as the time of the last change.
        written = {"mtime": str((datetime.now(UTC) - age).timestamp())}
        await self._s3.put_object(Bucket=self.name, Key=key, Body=content, Metadata=written)

    async def open_upload(self, key: str) -> None:
        """Begin a multipart upload, and never go on with it."""
        await self._s3.create_multipart_upload(Bucket=self.name, Key=key)

    async def begin_upload(self, key: str) -> None:
        """Begin a multipart upload, and leave it at that."""
        await self._s3.create_multipart_upload(Bucket=self.name, Key=key)

    async def unfinished(self) -> set[str]:
        """The keys of what is half-done: open multipart uploads, and objects in the inbox.

        Except recordings that were rejected, which stay until the gateway's sweeper takes them.
        """
        inbox = {key: key.removeprefix("inbox/").partition(".")[0] for key in await self.keys("inbox/")}
        failed = self._jobs.find({"_id": {"$in": list(inbox.values())}, "view.status": "failed"}, {"_id": 1})
        rejected = {document["_id"] async for document in failed}
        return {key for key, job_id in inbox.items() if job_id not in rejected} | await self.open_uploads()

    async def until_inbox_is_empty(self, besides: Set[str] = frozenset()) -> None:
        """Wait until nothing half-done is left except `besides`, what was there before."""

        async def look() -> bool:
            return await self.unfinished() <= besides

        await until(look, "an empty inbox", limit_seconds=10)

    async def clear_inbox(self) -> None:
        """Remove what is in the inbox."""
        for key in await self.keys("inbox/"):
            await self._s3.delete_object(Bucket=self.name, Key=key)


@asynccontextmanager
async def opened(settings: Mapping[str, str]) -> AsyncIterator[Bucket]:
    """The bucket of a stack with these settings, until the block ends."""
    session = aioboto3.Session(
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        region_name=settings["AWS_REGION"],
    )
    config = AioConfig(signature_version="s3v4", s3={"addressing_style": "path"})
    async with (
        session.client("s3", endpoint_url=settings["S3_ENDPOINT_URL"], config=config) as s3,
        AsyncMongoClient[dict[str, Any]](settings["MONGODB_URL"]) as mongodb,
    ):
        yield Bucket(s3, settings["S3_BUCKET_NAME"], mongodb.get_default_database()["jobs"])
