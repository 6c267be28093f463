"""Idempotency-Key on uploads (draft-ietf-httpapi-idempotency-key-header-07): one key, one job, whatever dies."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

import structlog

from contracts.events import UploadReceived
from gateway.submissions import File, JobExistsError, Recording, Submissions, sha256_of

log = structlog.get_logger()

RENEW_SECONDS = 10.0
"""A third of the lease: two renewals may fail before somebody else may take the claim over."""
_BARE = re.compile(r"[!#-~][!-~]{0,254}")
_QUOTED = re.compile(r'"((?:[!#-\[\]-~]|\\["\\])+)"')
_KEY_CHARACTERS = 255


class InvalidKeyError(ValueError):
    """The header is no idempotency key."""


class KeyInUseError(Exception):
    """A request with this key is under way, and its lease is not over."""


class JobGoneError(Exception):
    """The key was used, and the job that it made was purged."""


class KeyReusedError(Exception):
    """The key was used for another recording or token."""


@dataclass(frozen=True)
class Claim:
    """How a key stands after it was claimed: the claim is `owner`'s, until `recording` says that it is settled."""

    owner: str
    job_id: str
    recording: Recording | None


class Claims(Protocol):
    """The keys, each with the job that it stands for: chosen at its first claim, and kept for good."""

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        """Claim a key that is new or whose lease is over; return how it stands then, whoever's it is."""

    async def renew(self, key: str, owner: str) -> None:
        """Begin the lease anew, if the claim is still the owner's."""

    async def free(self, key: str, owner: str) -> None:
        """End the lease now, if the claim is still the owner's."""

    async def settle(self, key: str, recording: Recording) -> None:
        """Keep what the key was used for: from now on it only gets the first answer again."""


class Jobs(Protocol):
    """The job documents."""

    async def recording(self, job_id: str) -> Recording | None:
        """Return what a job was made from, None when there is no such job."""


@dataclass(frozen=True)
class Accepted:
    """The job that a key stands for; `event` is to be published now, unless an earlier request had it."""

    job_id: str
    event: UploadReceived | None


class Idempotency:
    """Accepts recordings that come with a key; any number of requests with it, at any replica, make one job.

    The lease keeps repeats out while a request is under way, but it is the job's id, the same for all of them, that
    keeps the promise: when a lease was lost and two requests get to the end, only one job can be inserted.
    """

    def __init__(self, claims: Claims, jobs: Jobs, submissions: Submissions) -> None:
        self._claims = claims
        self._jobs = jobs
        self._submissions = submissions

    async def accept(self, key: str, token_id: str, file: File, traceparent: str) -> Accepted:
        """Store the file and its job, or find the job that an earlier request made of it.

        Raises KeyInUseError and JobGoneError before the file is read, and KeyReusedError as soon as it is known.
        """
        hashed = hashlib.sha256(key.encode()).hexdigest()
        owner = uuid4().hex
        claim = await self._claims.claim(hashed, owner, str(uuid4()))
        if claim.recording is not None:
            if await self._jobs.recording(claim.job_id) is None:
                raise JobGoneError
            await _check_same(claim.recording, token_id, file)
            return Accepted(claim.job_id, None)
        if claim.owner != owner:
            raise KeyInUseError
        async with self._leased(hashed, owner):
            event, recording = await self._submit(claim.job_id, token_id, file, traceparent)
        await self._settle(hashed, recording)
        return Accepted(claim.job_id, event)

    async def _submit(
        self, job_id: str, token_id: str, file: File, traceparent: str
    ) -> tuple[UploadReceived | None, Recording]:
        try:
            event = await self._submissions.accept(token_id, file, traceparent, job_id)
        except JobExistsError as error:
            kept = await self._jobs.recording(job_id)
            if kept is None:
                raise KeyInUseError from None  # it is being removed again, or is not yet safe
            if kept != error.recording:
                raise KeyReusedError from None
            return None, kept
        return event, Recording(token_id, event.data.sha256)

    async def _settle(self, key: str, recording: Recording) -> None:
        try:
            await self._claims.settle(key, recording)
        except Exception as error:  # noqa: BLE001 - the job itself says the same once the lease is over
            log.warning("idempotency key not settled", reason=type(error).__name__)

    @asynccontextmanager
    async def _leased(self, key: str, owner: str) -> AsyncIterator[None]:
        """Keep the lease while the block runs; a block that fails frees the key at once."""
        renewing = asyncio.create_task(self._renew(key, owner))
        try:
            yield
        except BaseException:
            await asyncio.shield(self._free(key, owner))
            raise
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, key: str, owner: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._claims.renew(key, owner)
            except Exception as error:  # noqa: BLE001 - an outage: the next renewal may still be in time
                log.warning("idempotency lease not renewed", reason=type(error).__name__)

    async def _free(self, key: str, owner: str) -> None:
        try:
            await self._claims.free(key, owner)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            log.warning("idempotency key not freed", reason=type(error).__name__)


def parsed_key(headers: Sequence[str]) -> str | None:
    """Return the key in the request's Idempotency-Key headers, None when there are none.

    The draft's structured-field string ("…", RFC 8941, section 3.3.3) and the bare text that most clients send are
    both understood and mean the same; 1 to 255 visible ASCII characters, else InvalidKeyError.
    """
    if not headers:
        return None
    value = headers[0].strip(" \t")
    quoted = _QUOTED.fullmatch(value)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value
    if len(headers) > 1 or len(key) > _KEY_CHARACTERS or not (quoted or _BARE.fullmatch(value)):
        raise InvalidKeyError
    return key


async def _check_same(first: Recording, token_id: str, file: File) -> None:
    if token_id != first.token_id or await sha256_of(file) != first.sha256:
        raise KeyReusedError
