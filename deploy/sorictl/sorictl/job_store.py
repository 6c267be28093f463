"""MongoDB: the `jobs` collection, read to tell jobs again, and brought to what this version needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import OperationFailure

from contracts.events import JobPurged, UploadReceived
from contracts.job import Job, Status
from sorictl.imports import Document
from sorictl.mongodb import client_of

Item = TypeVar("Item")

BATCH = 1000
"""Jobs per read and write."""
OLD_INDEX = "outbox"
_NO_SUCH_INDEX = 27
_WITHOUT_HISTORY = {"history": 0, "result_json": 0, "audio": 0}
_NEVER_TOLD_AGAIN = {
    "view.status": Status.PROCESSING.value,
    "publish_at": None,
    # The gateway tells such a job's end instead.
    "cancel_asked_at": None,
    "purge_asked_at": None,
}
"""The jobs of earlier versions that nobody would ever look at again."""
_HALF_PURGED = {"history.type": JobPurged.TYPE, "purge_asked_at": None}
"""The jobs whose purge an earlier version has told, and which are still there: nobody would tell it again."""


@dataclass(frozen=True)
class BroughtUp:
    """What was done with the jobs of earlier versions."""

    told: int
    rebuilt: int
    outboxes: int
    purges: int
    index: bool

    def __bool__(self) -> bool:
        return any((self.told, self.outboxes, self.purges, self.index))


class JobStore:
    """The collection, for one command."""

    def __init__(self, collection: Any) -> None:
        self._jobs = collection

    def find(self, job_ids: Sequence[str]) -> dict[str, Job]:
        """Return those of the jobs that there are, by id, without their history."""
        found: dict[str, Job] = {}
        for batch in _batches(job_ids):
            for document in self._jobs.find({"_id": {"$in": batch}}, _WITHOUT_HISTORY):
                found[document["_id"]] = _job(document)
        return found

    def bring_up(self, rebuild: Callable[[Job], UploadReceived]) -> BroughtUp:
        """Give processing jobs of earlier versions what the gateway tells them again by, and remove their outboxes.

        Purges that an earlier version has begun, and that are not done, become states of their jobs.

        `rebuild` makes the event of a job that has none. Each job is changed whole, and only if nobody else has changed
        it meanwhile, so this may be broken off, repeated, and run beside services of any version.
        """
        told = rebuilt = 0
        for batch in _batches(self._never_told_again()):
            updates = [_update(document, rebuild) for document in batch]
            told += self._jobs.bulk_write(updates, ordered=False).modified_count
            rebuilt += sum(_kept_event(document) is None for document in batch)
        # A job that an earlier gateway has inserted since then keeps its outbox for the next time.
        marked = {"outbox": {"$exists": True}, "$nor": [_NEVER_TOLD_AGAIN]}
        outboxes = self._jobs.update_many(marked, {"$unset": {"outbox": ""}}).modified_count
        now = datetime.now(UTC)
        purge = {"$set": {"purge_asked_at": now, "publish_at": now, "redrives": 0}}
        purges = self._jobs.update_many(_HALF_PURGED, purge).modified_count
        return BroughtUp(told, rebuilt, outboxes, purges, self._drop_old_index())

    def _never_told_again(self) -> Iterator[Document]:
        fields = ("outbox", "upload_received", "token_id", "sha256", "traceparent", "created_at", "view")
        yield from self._jobs.find(_NEVER_TOLD_AGAIN, fields).batch_size(BATCH)

    def _drop_old_index(self) -> bool:
        if OLD_INDEX not in self._jobs.index_information():
            return False
        try:
            self._jobs.drop_index(OLD_INDEX)
        except OperationFailure as error:
            if error.code == _NO_SUCH_INDEX:  # somebody else was faster
                return False
            raise
        return True


@contextmanager
def connected(url: str) -> Iterator[JobStore]:
    """Yield the jobs of the database at this address; DatabaseError says in a sentence what is wrong with it."""
    with client_of(url) as client:
        yield JobStore(
            client.get_default_database("sori").get_collection(
                "jobs",
                codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
                write_concern=WriteConcern("majority", j=True),
            )
        )


def _update(document: Document, rebuild: Callable[[Job], UploadReceived]) -> UpdateOne:
    event = _kept_event(document) or rebuild(_job(document)).encode().decode()
    given = {"publish_at": datetime.now(UTC), "redrives": 0, "redriven_at": None, "upload_received": event}
    return UpdateOne({"_id": document["_id"], **_NEVER_TOLD_AGAIN}, {"$set": given, "$unset": {"outbox": ""}})


def _kept_event(document: Mapping[str, Any]) -> str | None:
    return document.get("upload_received") or document.get("outbox")


def _job(document: Mapping[str, Any]) -> Job:
    return Job.model_validate({"history": [], **document})


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    left = iter(items)
    while batch := list(islice(left, BATCH)):
        yield batch
