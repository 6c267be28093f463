"""Share links of jobs: made, listed, revoked, and found by their secret."""

import hashlib
import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts.api import ShareRight

MOST_LINKS = 20
"""How many links that have not expired a job has at most."""
_SECRET_BYTES = 32
_ID_BYTES = 8


class TooManyLinksError(Exception):
    """The job has MOST_LINKS links."""


class Link(BaseModel):
    """A link without its secret: the secret's SHA-256 is enough to know it by, since it is 256 random bits."""

    model_config = ConfigDict(frozen=True, validate_by_name=True, validate_by_alias=True)

    secret_sha256: str = Field(alias="_id")
    link_id: str
    job_id: str
    right: ShareRight
    created_at: AwareDatetime
    expires_at: AwareDatetime


class LinkStore(Protocol):
    """The `share_links` collection. A link that has expired is not there for any question."""

    async def insert(self, link: Link) -> None:
        """Keep a new link."""

    async def find(self, secret_sha256: str, now: datetime) -> Link | None:
        """Return the link with this secret."""

    async def of_job(self, job_id: str, now: datetime) -> list[Link]:
        """Return a job's links, the oldest first."""

    async def remove(self, job_id: str, link_id: str) -> bool:
        """Remove one; False when the job has no such link."""

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove all links of these jobs."""


class Links:
    """Makes links and finds them again. Whether the job is there, and for whom, is for callers to ask."""

    def __init__(self, store: LinkStore) -> None:
        self._store = store

    async def make(self, job_id: str, right: ShareRight, lasting: timedelta) -> tuple[Link, str]:
        """Return a new link and its secret, which is kept nowhere. TooManyLinksError when the job has enough."""
        now = datetime.now(UTC)
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        link = Link(
            secret_sha256=_sha256(secret),
            link_id=secrets.token_hex(_ID_BYTES),
            job_id=job_id,
            right=right,
            created_at=now,
            expires_at=now + lasting,
        )
        await self._store.insert(link)
        # Counted after it was kept: of several that are made at once, none gets past the bound.
        if len(await self._store.of_job(job_id, now)) > MOST_LINKS:
            await self.revoke(job_id, link.link_id)
            raise TooManyLinksError
        return link, secret

    async def find(self, secret: str) -> Link | None:
        """Return the link with this secret; None when there is none, or none any more."""
        return await self._store.find(_sha256(secret), datetime.now(UTC))

    async def of_job(self, job_id: str) -> list[Link]:
        """Return a job's links, the oldest first."""
        return await self._store.of_job(job_id, datetime.now(UTC))

    async def revoke(self, job_id: str, link_id: str) -> bool:
        """End a link at once; False when the job has no such link."""
        return await self._store.remove(job_id, link_id)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
