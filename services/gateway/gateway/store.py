"""MongoDB: inserts jobs, reads and lists them, finds those that need something; and keeps idempotency keys.

How MongoDB is spoken to is said here, for the catalogue's store too.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import ASCENDING, DESCENDING, ReadPreference, ReturnDocument, WriteConcern, timeout
from pymongo.errors import BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from contracts.job import Job, Status, is_terminal
from gateway.batches import Batches
from gateway.errors import BackEndError
from gateway.idempotency import Claim
from gateway.listing import Place, Wanted
from gateway.submissions import Recording

ANSWER_MS = 5000
"""How long MongoDB may take before a request is refused, milliseconds."""
PRIMARY_MS = 1000
"""How long a primary is looked for; one that is not there by then is away."""
ASKING_SECONDS = 1.0
"""How long it may take to say that it is up."""
KEY_SECONDS = 24 * 3600
"""How long an idempotency key is kept."""
LEASE_MS = 30_000
"""How long a key stays claimed by a request that gives no sign of life."""
CONFLICT_SECONDS = 5.0
"""For how long a transaction is begun anew that others are in the way of."""
_DUPLICATE_KEY = 11000
_UNSEEN = {"history": 0, "outbox": 0, "audio": 0}
_SUMMARY = {**_UNSEEN, "result_json": 0}
_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]
_ENDED = [status.value for status in Status if is_terminal(status)]

Answer = TypeVar("Answer")


class DuplicateError(Exception):
    """A unique index has this already; `field` is what it is an index of."""

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is taken")
        self.field = field


def connected(url: str) -> Any:
    """Return a client of this database server, to be closed at the end; it connects by itself."""
    # No timeoutMS: it would also be the time for which a primary is looked for.
    return AsyncIOMotorClient(
        url, serverSelectionTimeoutMS=PRIMARY_MS, connectTimeoutMS=PRIMARY_MS, socketTimeoutMS=ANSWER_MS
    )


def collection(client: Any, name: str) -> Any:
    """Return a collection: what is written is on a majority's disks, what is read is the primary's."""
    return client.get_default_database("sori").get_collection(
        name,
        codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
    )


async def in_transaction(client: Any, work: Callable[[Any], Awaitable[Answer]]) -> Answer:
    """Run `work(session)` in one transaction: all that it does is kept, or nothing.

    It is run again when another transaction was in the way. The driver's own loop would also go on for two minutes
    while there is no primary.
    """
    jitter = wait_random_exponential(multiplier=0.005, max=0.2)
    conflict = retry_if_exception(_is_conflict)
    async with await client.start_session() as session:
        async for attempt in AsyncRetrying(
            retry=conflict, wait=jitter, stop=stop_after_delay(CONFLICT_SECONDS), reraise=True
        ):
            with attempt:
                async with session.start_transaction(
                    ReadConcern("snapshot"), WriteConcern("majority", j=True), ReadPreference.PRIMARY, ANSWER_MS
                ):
                    answer = await work(session)
    return answer


async def insert(rows: Any, document: dict[str, Any], *, session: Any = None) -> None:
    """Insert a document; DuplicateError when there is one like it."""
    with _noticing_duplicates():
        await rows.insert_one(document, session=session)


async def changed(
    rows: Any, query: dict[str, Any], change: dict[str, Any], *, upsert: bool = False, session: Any = None
) -> Any:
    """Change one document; return it as it is then, None when there is none. DuplicateError as for `insert`."""
    with _noticing_duplicates():
        return await rows.find_one_and_update(
            query, change, upsert=upsert, return_document=ReturnDocument.AFTER, session=session
        )


class Jobs:
    """The `jobs` collection as the gateway uses it: it inserts, and reads."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._jobs = collection(client, "jobs")
        self._inserts = Batches(self._insert_all)
        self._traceparents = Batches(self._find_traceparents)

    async def prepare(self) -> None:
        """Create the indexes: one for the relay's question, one for lists of every kind, one for those of a token."""
        await self._jobs.create_index(
            [("created_at", ASCENDING)], name="outbox", partialFilterExpression={"outbox": {"$type": "string"}}
        )
        # A list of any status is merged from one scan for each: no index of its own.
        await self._jobs.create_index([("view.status", ASCENDING), *_NEWEST], name="status")
        await self._jobs.create_index([("token_id", ASCENDING), *_NEWEST], name="token")

    async def insert(self, job: Job) -> bool:
        """Keep a new job; it is on a majority's disks when this returns. False when there is one with this id."""
        with noticing_outages():
            return await self._inserts.answer(job)

    async def find(self, job_id: str) -> Job | None:
        """Return the job without its history."""
        return await self._find(job_id, _UNSEEN)

    async def find_whole(self, job_id: str) -> Job | None:
        """Return the job with its history."""
        return await self._find(job_id, {"outbox": 0})

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when there is no such job on a majority's disks."""
        jobs = self._jobs.with_options(read_concern=ReadConcern("majority"))
        with noticing_outages():
            found = await jobs.find_one({"_id": job_id}, {"token_id": 1, "sha256": 1})
        return None if found is None else Recording(found["token_id"], found["sha256"])

    async def page(self, wanted: Wanted, after: Place | None, limit: int) -> list[Job]:
        """Return the newest `limit` jobs that are wanted, of those that come `after` a place."""
        with noticing_outages():
            cursor = self._jobs.find(_query(wanted, after), _SUMMARY).sort(_NEWEST).limit(limit)
            return [_job(document) for document in await cursor.to_list(limit)]

    async def ahead(self, job: Job) -> int:
        """Return how many jobs that came before this one are not done either."""
        with noticing_outages():
            query = {"view.status": Status.PROCESSING.value, "created_at": {"$lt": job.created_at}}
            return int(await self._jobs.count_documents(query))

    async def ended_before(self, moment: datetime, besides: list[str], limit: int) -> list[Job]:
        """Return up to `limit` jobs that have ended and came before `moment`, oldest first; none of `besides`."""
        query = {"view.status": {"$in": _ENDED}, "created_at": {"$lt": moment}, "_id": {"$nin": besides}}
        oldest = [(name, ASCENDING) for name, _ in _NEWEST]
        cursor = self._jobs.find(query, _SUMMARY).sort(oldest).limit(limit)
        return [_job(document) for document in await cursor.to_list(limit)]

    async def traceparent(self, job_id: str) -> str | None:
        """Return the trace that the job belongs to, None when there is no such job."""
        with noticing_outages():
            return await self._traceparents.answer(job_id)

    async def unpublished(self, older_than: timedelta, besides: list[str], limit: int) -> list[tuple[str, bytes]]:
        """Return up to `limit` events that have lain in an outbox for this long, oldest first; none of `besides`.

        Each with the id of the job whose outbox it is in.
        """
        before = datetime.now(UTC) - older_than
        query = {"outbox": {"$type": "string"}, "created_at": {"$lt": before}, "_id": {"$nin": besides}}
        cursor = self._jobs.find(query, {"outbox": 1}).sort("created_at", ASCENDING).limit(limit)
        return [(document["_id"], document["outbox"].encode()) for document in await cursor.to_list(limit)]

    async def unfinished(self, job_ids: list[str]) -> set[str]:
        """Return those of the jobs that have not ended."""
        query = {"_id": {"$in": job_ids}, "view.status": Status.PROCESSING.value}
        cursor = self._jobs.find(query, {"_id": 1})
        return {document["_id"] for document in await cursor.to_list(None)}

    async def is_up(self) -> bool:
        """Tell whether a primary answers."""
        # Each question takes a thread of the driver's until it is answered or given up.
        with timeout(ASKING_SECONDS):
            await self._client.admin.command("ping")
        return True

    async def _find(self, job_id: str, projection: dict[str, int]) -> Job | None:
        with noticing_outages():
            found = await self._jobs.find_one({"_id": job_id}, projection)
        return None if found is None else _job(found)

    async def _insert_all(self, jobs: list[Job]) -> list[bool]:
        try:
            await self._jobs.insert_many([job.model_dump(by_alias=True) for job in jobs], ordered=False)
        except BulkWriteError as error:
            # One job that exists says nothing against the others of its batch.
            details = error.details or {}
            failed = {failure["index"]: failure["code"] for failure in details["writeErrors"]}
            if details["writeConcernErrors"] or set(failed.values()) != {_DUPLICATE_KEY}:
                raise
            return [index not in failed for index in range(len(jobs))]
        return [True] * len(jobs)

    async def _find_traceparents(self, job_ids: list[str]) -> list[str | None]:
        cursor = self._jobs.find({"_id": {"$in": job_ids}}, {"traceparent": 1})
        found = {document["_id"]: str(document["traceparent"]) for document in await cursor.to_list(None)}
        return [found.get(job_id) for job_id in job_ids]


class Claims:
    """The `idempotency_keys` collection; leases run by the database's clock, which all replicas share."""

    def __init__(self, client: Any) -> None:
        self._keys = collection(client, "idempotency_keys")
        self._prepared = False

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        """Claim a key that is new or whose lease is over; return how it stands then, whoever's it is."""
        free = {"$and": [{"$not": ["$settled"]}, {"$lt": [{"$ifNull": ["$lease_until", _LONG_AGO]}, "$$NOW"]}]}
        change = {
            "created_at": {"$ifNull": ["$created_at", "$$NOW"]},
            "job_id": {"$ifNull": ["$job_id", job_id]},
            "owner": {"$cond": [free, owner, "$owner"]},
            "lease_until": {"$cond": [free, _LEASE, "$lease_until"]},
        }
        with noticing_outages():
            await self._prepare()
            stands = await self._keys.find_one_and_update(
                {"_id": key}, [{"$set": change}], upsert=True, return_document=ReturnDocument.AFTER
            )
        settled = stands.get("settled")
        recording = None if settled is None else Recording(settled["token_id"], settled["sha256"])
        return Claim(stands["owner"], stands["job_id"], recording)

    async def renew(self, key: str, owner: str) -> None:
        """Begin the lease anew, if the claim is still the owner's."""
        await self._keys.update_one({"_id": key, "owner": owner}, [{"$set": {"lease_until": _LEASE}}])

    async def free(self, key: str, owner: str) -> None:
        """End the lease now, if the claim is still the owner's."""
        await self._keys.update_one({"_id": key, "owner": owner}, {"$set": {"owner": ""}, "$unset": {"lease_until": 1}})

    async def settle(self, key: str, recording: Recording) -> None:
        """Keep what the key was used for: from now on it only gets the first answer again."""
        settled = {"token_id": recording.token_id, "sha256": recording.sha256}
        await self._keys.update_one({"_id": key}, {"$set": {"settled": settled}, "$unset": {"lease_until": 1}})

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._keys.create_index("created_at", name="kept", expireAfterSeconds=KEY_SECONDS)
            self._prepared = True


_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_LEASE = {"$add": ["$$NOW", LEASE_MS]}


@contextmanager
def noticing_outages() -> Iterator[None]:
    """Make what MongoDB cannot do a BackEndError."""
    try:
        yield
    except PyMongoError as error:
        raise BackEndError("MongoDB") from error


@contextmanager
def _noticing_duplicates() -> Iterator[None]:
    try:
        yield
    except DuplicateKeyError as error:
        raise DuplicateError(next(iter((error.details or {})["keyPattern"]))) from error


def _is_conflict(error: BaseException) -> bool:
    # Not when the connection was lost, which has the label too.
    return isinstance(error, OperationFailure) and error.has_error_label("TransientTransactionError")


def _job(document: dict[str, Any]) -> Job:
    return Job.model_validate({"history": [], **document})


def _query(wanted: Wanted, after: Place | None) -> dict[str, Any]:
    statuses = list(Status) if wanted.status is None else [wanted.status]
    query: dict[str, Any] = {"view.status": {"$in": [status.value for status in statuses]}}
    if wanted.token_id is not None:
        query["token_id"] = wanted.token_id
    created: dict[str, datetime] = {}
    if wanted.created_after is not None:
        created["$gte"] = wanted.created_after
    if wanted.created_before is not None:
        created["$lt"] = wanted.created_before
    if after is not None:
        created["$lte"] = after.created_at
        # Of those that came at the same moment, the ids tell which are still to come.
        query["$or"] = [{"created_at": {"$lt": after.created_at}}, {"_id": {"$lt": after.job_id}}]
    if created:
        query["created_at"] = created
    return query
