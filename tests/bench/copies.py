"""Jobs by the thousand, made as copies of a real one's documents: what a real job writes, without its whole way."""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import bson
import httpx
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.database import Database

from local_stack.stack import Stack
from tests.bench.programs import ProgramError
from tests.support.recordings import wav

COLLECTIONS = ("jobs", "analyses")
_LIMIT_SECONDS = 30.0
_BATCH = 2000


def job_ids(seed: int, count: int) -> list[str]:
    """So many job ids, the same for the same seed."""
    numbers = random.Random(seed)
    return [str(uuid.UUID(int=numbers.getrandbits(128), version=4)) for _ in range(count)]


@contextmanager
def under_way(stack: Stack, token_id: str, copies: list[str]) -> Iterator[dict[str, Any]]:
    """Have jobs with these ids whose analysis goes on while the block runs; gives the document of the first one."""
    with _database(stack) as database:
        original = _sent(stack, f"never-calls-back--{token_id}", progress=90)
        job = database.jobs.find_one({"_id": original})
        assert job is not None
        # No copy is looked at by the gateway's loop while it is listened to.
        job["publish_at"] = datetime.now(UTC) + timedelta(days=1)
        _insert(database.jobs, bson.encode(job), original, iter(copies))
        try:
            found = database.jobs.find_one({"_id": copies[0]})
            assert found is not None
            yield found
        finally:
            for first in range(0, len(copies), _BATCH):
                database.jobs.delete_many({"_id": {"$in": copies[first : first + _BATCH]}})
            httpx.delete(f"{stack.url}/jobs/{original}", trust_env=False)


def add_completed(stack: Stack, token_id: str, copies: list[str]) -> None:
    """Add jobs that have been completed, with their analyses, each with a recording of its own."""
    with _database(stack) as database:
        original = _sent(stack, token_id, progress=100)
        for name in COLLECTIONS:
            document = database[name].find_one({"_id": original})
            assert document is not None, f"a job has no document of its own in {name}"
            _insert(database[name], bson.encode(document), original, iter(copies))


def count(stack: Stack) -> int:
    """How many jobs there are."""
    with _database(stack) as database:
        return int(database.jobs.estimated_document_count())


@contextmanager
def _database(stack: Stack) -> Iterator[Database[dict[str, Any]]]:
    with MongoClient[dict[str, Any]](stack.settings["MONGODB_URL"], tz_aware=True) as client:
        yield client.get_default_database()


def _sent(stack: Stack, token_id: str, *, progress: int) -> str:
    """Send a recording, wait until its job has come so far, and return the job's id."""
    with httpx.Client(base_url=stack.url, trust_env=False, timeout=10) as client:
        files = {"file": ("recording.wav", wav(1.0, 1), "audio/wav")}
        job_id = str(client.post(f"/tokens/{token_id}/upload-audio", files=files).raise_for_status().json()["job_id"])
        limit = time.monotonic() + _LIMIT_SECONDS
        while time.monotonic() < limit:
            job = client.get(f"/tokens/analysis-result/{job_id}").json()
            if job.get("progress") == progress:
                return job_id
            time.sleep(0.05)
    raise ProgramError(f"the job that was to be copied stays at {job}")


def copied(encoded: bytes, original: str, job_id: str) -> bytes:
    """A document's bytes with another job id, and another hash of the recording, wherever they stand in them."""
    copy = encoded.replace(original.encode(), job_id.encode())
    sha256 = bson.decode(encoded).get("sha256")
    return copy.replace(sha256.encode(), random.randbytes(32).hex().encode()) if sha256 else copy


def _insert(collection: Any, encoded: bytes, original: str, copies: Iterator[str]) -> None:
    while batch := list(islice(copies, _BATCH)):
        documents = [RawBSONDocument(copied(encoded, original, job_id)) for job_id in batch]
        collection.insert_many(documents, ordered=False)
