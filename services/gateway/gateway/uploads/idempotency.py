"""Idempotency-Key on uploads (draft-ietf-httpapi-idempotency-key-header-07): one key makes one job, whatever dies."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import structlog

from chassis.errors import reason_of
from chassis.periodic import Periodic
from contracts.events import UploadReceived
from gateway.audio import ArrivingFile, Recording
from gateway.jobs.documents import Jobs
from gateway.uploads.submissions import Dubbed, JobExistsError, Submissions, sha256_of

log = structlog.get_logger()

RENEW_SECONDS = 10.0
"""A third of the lease: two renewals may fail before another request can take the claim over."""
_BARE = re.compile(r"[!#-~][!-~]{0,254}")
_QUOTED = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"')
_KEY_CHARACTERS = 255


class InvalidKeyError(ValueError):
    """The header is not an idempotency key."""


class KeyInUseError(Exception):
    """Another request with this key is under way."""


class JobGoneError(Exception):
    """The key was used, and the job that it made was purged."""


class KeyReusedError(Exception):
    """The key was used for another recording, token or metadata."""


@dataclass(frozen=True)
class Claim:
    """Who holds a key, and the job that it stands for; it is settled once `recording` is known."""

    owner: str
    job_id: str
    recording: Recording | None


class Claims(Protocol):
    """The claims of keys. The job that a key stands for is chosen at its first claim, and never changes."""

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        """Claim a key that is new or whose lease is over; return the claim that holds now, whoever owns it."""

    async def renew(self, key: str, owner: str) -> None:
        """Begin the lease anew, if the owner still holds the claim."""

    async def free(self, key: str, owner: str) -> None:
        """End the lease now, if the owner still holds the claim."""

    async def settle(self, key: str, recording: Recording) -> None:
        """Record what the key was used for: from now on, requests with it get the first answer again."""

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove the claims that stand for these jobs, although a repeat of such an upload then is a new one."""


@dataclass(frozen=True)
class Accepted:
    """The job that a key stands for; `event` is to be published now, None when an earlier request made the job."""

    job_id: str
    event: UploadReceived | None


class Idempotency:
    """Accepts recordings that come with a key; any number of requests with it, at any replica, make one job.

    The lease keeps repeats out while a request is under way. But it is the job's id that keeps the promise: requests
    with one key share it, so when a lease was lost and two requests reach the end, only one job can be inserted.
    """

    def __init__(self, claims: Claims, jobs: Jobs, submissions: Submissions) -> None:
        self._claims = claims
        self._jobs = jobs
        self._submissions = submissions

    async def accept(self, key: str, dubbed: Dubbed, file: ArrivingFile) -> Accepted:
        """Store the file and its job, or find the job that an earlier request made of it.

        Raises KeyInUseError and JobGoneError before the file is read, and KeyReusedError as soon as it is known.
        """
        hashed = _hashed(key, dubbed.owner)
        owner = uuid4().hex
        claim = await self._claims.claim(hashed, owner, str(uuid4()))
        if claim.recording is not None:
            if await self._jobs.recording(claim.job_id) is None:
                raise JobGoneError
            await _check_same(claim.recording, dubbed.token_id, file)
            return Accepted(claim.job_id, None)
        if claim.owner != owner:
            raise KeyInUseError
        async with self._leased(hashed, owner):
            event, recording = await self._submit(claim.job_id, dubbed, file)
        await self._settle(hashed, recording)
        return Accepted(claim.job_id, event)

    async def _submit(self, job_id: str, dubbed: Dubbed, file: ArrivingFile) -> tuple[UploadReceived | None, Recording]:
        try:
            event = await self._submissions.accept(dubbed, file, job_id)
        except JobExistsError as error:
            first = await self._jobs.recording(job_id)
            if first is None:
                raise KeyInUseError from None  # the job is being purged, or is not safe yet
            if first != error.recording:
                raise KeyReusedError from None
            return None, first
        return event, Recording.of(dubbed.token_id, event.data.sha256, event.data.metadata)

    async def _settle(self, key: str, recording: Recording) -> None:
        try:
            await self._claims.settle(key, recording)
        except Exception as error:  # noqa: BLE001 - once the lease is over, the job itself gives the same answer
            log.warning("idempotency key not settled", reason=reason_of(error))

    @asynccontextmanager
    async def _leased(self, key: str, owner: str) -> AsyncIterator[None]:
        """Renew the lease while the block runs; free the key at once when the block fails."""
        renewing = Periodic(
            lambda: self._claims.renew(key, owner), seconds=RENEW_SECONDS, waiting="idempotency lease not renewed"
        )
        renewing.start()
        try:
            yield
        except BaseException:
            await asyncio.shield(self._free(key, owner))
            raise
        finally:
            await renewing.stop()

    async def _free(self, key: str, owner: str) -> None:
        try:
            await self._claims.free(key, owner)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log.warning("idempotency key not freed", reason=reason_of(error))


def parsed_key(headers: Sequence[str]) -> str | None:
    """Return the key in the request's Idempotency-Key headers, None when there are none.

    The draft's structured-field string ("…", RFC 8941, section 3.3.3) and the bare text that most clients send mean
    the same. A key has 1 to 255 visible ASCII characters; anything else is an InvalidKeyError.
    """
    if not headers:
        return None
    value = headers[0].strip(" \t")
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if len(headers) > 1 or len(key) > _KEY_CHARACTERS or not (quoted or _BARE.fullmatch(value)):
        raise InvalidKeyError
    return key


def _hashed(key: str, owner: str | None) -> str:
    """Return what a key is kept as. The same key of two owners is two keys."""
    return hashlib.sha256((key if owner is None else f"{owner}\n{key}").encode()).hexdigest()


async def _check_same(first: Recording, token_id: str, file: ArrivingFile) -> None:
    if token_id != first.token_id or Recording.of(token_id, await sha256_of(file), file.metadata) != first:
        raise KeyReusedError
