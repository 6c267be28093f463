"""RETENTION_DAYS: a gateway purges jobs that ended long ago, and no others."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from contracts import events
from contracts.job import Job
from local_stack.stack import Stack
from tests.contract.service_process import SERVICES, ServiceProcess
from tests.support.broker import Broker
from tests.support.events import Story

(GATEWAY,) = (service for service in SERVICES if service.name == "gateway")
DAYS = 0.0001
"""About nine seconds; a gateway looks ten times in that."""


def kept(status: str, age: timedelta) -> dict[str, Any]:
    """A job document of this age."""
    event = Story(str(uuid.uuid4())).upload_received()
    event = event.model_copy(update={"time": datetime.now(UTC) - age})
    document = Job.received(event, None).model_dump(by_alias=True, exclude={"upload_received"})
    document["view"]["status"] = status
    return document


async def test_jobs_that_ended_long_ago_are_purged_and_no_others(stack: Stack, broker: Broker, tmp_path: Path) -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    url = stack.settings["MONGODB_URL"].replace("/sori?", f"/{name}?")
    assert name in url
    old, young = timedelta(days=1), timedelta(days=-1)
    ended = [kept(status, old) for status in ("completed", "failed", "cancelled")]
    others = [kept("processing", old), *(kept(status, young) for status in ("completed", "processing"))]
    settings = {**stack.settings, "MONGODB_URL": url, "RETENTION_DAYS": str(DAYS)}
    async with (
        AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"]) as mongodb,
        broker.overhearing() as heard,
    ):
        try:
            await mongodb[name]["jobs"].insert_many([*ended, *others])
            async with ServiceProcess.running(GATEWAY, settings, tmp_path / "log") as process:
                for door in process.doors.values():
                    await door.open()
                for document in ended:
                    (purged,) = await heard.until(document["_id"], events.JobPurged)
                    assert purged.traceparent == document["traceparent"]
                # It has looked at them all, and asks for the same again only after an hour.
                late = kept("completed", old)
                await mongodb[name]["jobs"].insert_one(late)
                await heard.until(late["_id"], events.JobPurged)
                assert await process.stop() == 0
        finally:
            await mongodb.drop_database(name)
    assert [heard.of(document["_id"]) for document in others] == [[], [], []]
    assert all(len(heard.of(document["_id"], events.JobPurged)) == 1 for document in [*ended, late])
