"""Callers: who they are, and what they may do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from contracts.rights import Right, Role

BY_SESSION = "session:"
BY_KEY = "key:"
"""How the credentials of callers begin that may be revoked; the id of the session follows, or the key's SHA-256."""


class Kind(StrEnum):
    """How a caller is known."""

    ANYBODY = "anybody"
    """No login is needed (AUTH=off)."""
    ANONYMOUS = "anonymous"
    PERSON = "person"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from. `owner` is whom the jobs that it makes belong to."""

    kind: Kind
    rights: frozenset[Right]
    owner: str | None = None
    roles: frozenset[Role] = frozenset()
    credential: str | None = None
    """What may be revoked before it expires (BY_SESSION, BY_KEY); None for an issuer's token."""
    expires_at: datetime | None = None
    by_cookie: bool = False
    """A browser sends a cookie whoever made it ask, so a change needs a known origin too."""

    def may(self, right: Right) -> bool:
        """Tell whether the caller has this right."""
        return right in self.rights

    def sees(self, owner: str | None) -> bool:
        """Tell whether a job of this owner is there for the caller. One without an owner is the operators'."""
        return Right.JOBS_ALL in self.rights or (owner is not None and owner == self.owner)

    @property
    def session_id(self) -> str | None:
        """Return the id of the session that the caller comes with; None for any other credential."""
        credential = self.credential or ""
        return credential.removeprefix(BY_SESSION) if credential.startswith(BY_SESSION) else None

    @property
    def is_known(self) -> bool:
        """Tell whether the caller has said who it is."""
        return self.kind in {Kind.PERSON, Kind.MACHINE}


ANYBODY = Caller(Kind.ANYBODY, frozenset(Right))
"""Everyone, where no login is needed."""


class InvalidCredentialError(Exception):
    """The credential is none that counts here, or counts no more. `expired` tells that it once did."""

    def __init__(self, reason: str, *, expired: bool = False) -> None:
        super().__init__(reason)
        self.expired = expired
