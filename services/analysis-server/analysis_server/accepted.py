"""What the servers of a bucket have accepted: kept in S3 until its webhook was answered, and taken over from the dead.

Under `analysis-server/`:

- `accepted-<digest of the request>`: one accepted job, and whose it is
- `alive-<run>`: written by a run of a server when it starts, and again and again while it has jobs in hand

Both lie side by side: where S3 is served from folders, one that became empty is removed, and a write into it at that
moment fails. The sign of life keeps the folder from being empty.
"""

import asyncio
import hashlib
import json
import secrets
import socket
from collections.abc import Callable, Collection
from dataclasses import asdict

import structlog
from pydantic import BaseModel, Field, ValidationError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_exponential_jitter

from analysis_server.errors import StorageError
from analysis_server.job import Job
from analysis_server.settings import Settings
from analysis_server.storage import Bucket

_log = structlog.get_logger()

PREFIX = "analysis-server/"
_ACCEPTED, _ALIVE = f"{PREFIX}accepted-", f"{PREFIX}alive-"
LOOKS_UNTIL_DEAD = 3
"""A run whose sign of life has not changed in so many looks is dead."""
LOOKS_UNTIL_FORGOTTEN = 30
"""After so many its sign of life is removed."""
_MAX_BYTES = 4 * 1024 * 1024  # a request has 1 MiB at most, and JSON may escape
_AT_ONCE = 8
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.2, 10.0


class Kept(BaseModel):
    """A job as it lies in S3. `starts` counts how often its analysis was begun after it had been taken over."""

    key: str = Field("", exclude=True)
    run: str
    starts: int = 0
    job: Job


class Accepted:
    """The accepted jobs of all servers at one bucket, as one run of one server sees them.

    A run is one process from its start to its end. A server takes over at once what earlier runs at its own place (host
    name, HOST and PORT) have left, since only one process can listen there. What runs elsewhere have left it takes over
    when they have shown no life in LOOKS_UNTIL_DEAD looks. Looks are counted, not seconds: clocks need not agree, and
    nobody dies of an outage of S3. Should two servers take over a job in the same moment, both analyse it.
    """

    def __init__(self, storage: Bucket, settings: Settings) -> None:
        self._storage = storage
        self._place = _digest([socket.gethostname(), settings.host, settings.port])[:16]
        self._run = f"{self._place}-{secrets.token_hex(4)}"
        self._beats = 0
        self._seen: dict[str, tuple[str, int]] = {}
        """The version of each object, and how many looks have found it unchanged."""
        self._runs: dict[str, str] = {}
        """Whose each accepted job is, as far as that was read."""
        self._not_deleted: set[str] = set()
        self.has_looked = False
        """Whether everything that is kept was looked at once."""

    def key_of(self, job: Job) -> str:
        """Return the key of a job: the same for the same request, whatever id it was given here."""
        request = {name: value for name, value in asdict(job).items() if name not in {"job_id", "traceparent"}}
        return f"{_ACCEPTED}{_digest(request)}"

    def is_mine(self, kept: Kept) -> bool:
        """Tell whether a job is this run's."""
        return kept.run == self._run

    async def find(self, key: str) -> Kept | None:
        """Return the job that is kept under a key; raises StorageError while S3 is away."""
        try:
            kept = Kept.model_validate_json(await self._storage.read_now(key, _MAX_BYTES))
        except StorageError as error:
            if error.fault == "unavailable":
                raise
            if error.fault != "too_large":  # missing; AWS says forbidden when listing the bucket is not allowed
                return None
        except ValidationError:
            pass
        else:
            # Not what `key_of` says now: another version of this server may have written it.
            return kept.model_copy(update={"key": key})
        _log.error("accepted-job-damaged", key=key)
        await self._storage.remove(key)
        return None

    async def keep(self, job: Job) -> Kept:
        """Write down that a job is this run's; raises StorageError, and then it may be there all the same."""
        return await self._write(Kept(key=self.key_of(job), run=self._run, job=job))

    async def count_start(self, kept: Kept) -> None:
        """Count that the analysis of a job begins; while S3 is away it is not counted."""
        kept.starts += 1
        try:
            await self._write(kept)
        except StorageError as error:
            _log.warning("start-not-counted", fault=error.fault, exc_info=error.__cause__)

    async def forget(self, kept: Kept, *, patiently: bool = True) -> None:
        """Delete a job that has ended; it is tried for as long as S3 is away, or else once."""
        attempts = AsyncRetrying(
            retry=retry_if_exception(lambda error: patiently and _is_away(error)),
            wait=wait_exponential_jitter(multiplier=_FIRST_DELAY_S, max=_LONGEST_DELAY_S),
            before_sleep=_log_first,
            reraise=True,
        )
        try:
            await attempts(self._storage.remove, kept.key)
        except StorageError as error:
            # This run would find it again and again, and analyse it each time.
            self._not_deleted.add(kept.key)
            _log.error("job-not-forgotten", fault=error.fault, exc_info=error.__cause__)

    async def show_life(self) -> None:
        """Show the other servers that this run lives; raises StorageError."""
        self._beats += 1
        await self._storage.write(_sign_of(self._run), str(self._beats).encode())

    async def leave(self) -> None:
        """Remove the sign of life: this run ends."""
        if self._beats:
            await self._remove_sign(_sign_of(self._run))

    async def take_over(self, in_hand: Callable[[], Collection[str]], begin: Callable[[Kept], None]) -> None:
        """Make the jobs that no living run has this run's, the oldest first, and call `begin` with each of them.

        Raises StorageError when it could not be looked for them. `in_hand` returns the keys of this run's jobs. One of
        this run's that is not among them was written although S3 had not said so, and another server may have told its
        sender since that it was accepted.
        """
        listed = await self._storage.listed(PREFIX)
        self._note(listed)
        known = {*in_hand(), *self._not_deleted}
        keys = [key for key in listed if key.startswith(_ACCEPTED) and key not in known and self._is_to_be_read(key)]
        one_of_few, failures = asyncio.Semaphore(_AT_ONCE), list[StorageError]()

        async def take(key: str) -> None:
            try:
                async with one_of_few:
                    if kept := await self._taken_over(key, in_hand):
                        begin(kept)
            except StorageError as error:
                failures.append(error)

        await asyncio.gather(*map(take, keys))
        if failures:
            cause = failures[0].__cause__
            _log.warning("jobs-not-taken-over", count=len(failures), fault=failures[0].fault, exc_info=cause)
        else:
            self.has_looked = True
        await self._tidy(listed)

    def _note(self, listed: dict[str, str]) -> None:
        """Remember which version each object has, and for how many looks it has had it."""
        signs = {_sign_of(run): "none" for run in self._runs.values()}
        before = self._seen
        self._seen = {}
        for key, version in (signs | listed).items():
            last_version, looks = before.get(key, (None, 0))
            self._seen[key] = (version, looks + 1 if version == last_version else 0)
        self._runs = {key: run for key, run in self._runs.items() if key in listed and self._looks(key)}

    def _looks(self, key: str) -> int:
        return self._seen[key][1] if key in self._seen else 0

    def _is_to_be_read(self, key: str) -> bool:
        """Tell whether it has to be read whose a job is. Most jobs end before that, so that others never read them."""
        if key in self._runs:
            return self._is_left(self._runs[key])
        return not self.has_looked or self._looks(key) >= LOOKS_UNTIL_DEAD

    def _is_left(self, run: str) -> bool:
        return run.startswith(f"{self._place}-") or self._looks(_sign_of(run)) >= LOOKS_UNTIL_DEAD

    async def _taken_over(self, key: str, in_hand: Callable[[], Collection[str]]) -> Kept | None:
        kept = await self.find(key)
        if kept is None or key in in_hand():
            return None
        self._runs[key] = kept.run
        if not self._is_left(kept.run):
            return None
        kept.run = self._run
        return await self._write(kept)

    async def _write(self, kept: Kept) -> Kept:
        await self._storage.write(kept.key, kept.model_dump_json().encode())
        self._not_deleted.discard(kept.key)
        return kept

    async def _tidy(self, listed: dict[str, str]) -> None:
        """Remove the signs of life of runs that ended long ago. One that lives and has no job writes its sign anew."""
        for key in listed:
            if key.startswith(_ALIVE) and key != _sign_of(self._run) and self._looks(key) >= LOOKS_UNTIL_FORGOTTEN:
                await self._remove_sign(key)

    async def _remove_sign(self, key: str) -> None:
        try:
            await self._storage.remove(key)
        except StorageError as error:
            _log.warning("sign-of-life-left", fault=error.fault)


def _sign_of(run: str) -> str:
    return f"{_ALIVE}{run}"


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _is_away(error: BaseException) -> bool:
    return isinstance(error, StorageError) and error.fault == "unavailable"


def _log_first(state: RetryCallState) -> None:
    if state.attempt_number == 1:
        _log.warning("forgetting-waits", reason="S3 is away")
