"""Sessions of people: how they begin, go on and end, and the cookie that browsers carry."""

import secrets
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog
from cachetools import TTLCache

from chassis.errors import reason_of
from chassis.identity.caller import Caller
from chassis.identity.own_tokens import SESSION, OwnTokens
from contracts.accounts import SESSION_COOKIE, Session
from contracts.rights import Role

log = structlog.get_logger()

LIFETIME = timedelta(hours=12)
"""How long a session lasts without being used."""
RENEWED_AFTER = timedelta(hours=1)
LONGEST = timedelta(days=7)
"""After so long somebody has to log in again, and the issuer is asked again what they are."""
RENEWED_SECONDS = 600
MOST_RENEWED = 10_000
"""A session is not renewed again so soon: requests that come together would each ask MongoDB for it, and near its
longest so would all."""
_ATTRIBUTES = "Path=/; HttpOnly; Secure; SameSite=Lax"
CLEARED_COOKIE = f"{SESSION_COOKIE}=; {_ATTRIBUTES}; Max-Age=0"


class SessionStore(Protocol):
    """The `sessions` collection."""

    async def insert(self, session: Session) -> None:
        """Keep a new session."""

    async def extend(self, session_id: str, until: datetime, longest: timedelta) -> Session | None:
        """Let it last until then, or `longest` from its beginning; None when it was ended."""

    async def remove(self, session_id: str) -> bool:
        """End it; False when it had ended."""


class Sessions:
    """Begins and ends sessions. `tokens` is None where no login is needed."""

    def __init__(self, store: SessionStore, tokens: OwnTokens | None) -> None:
        self._store = store
        self._tokens = tokens
        self._renewed: TTLCache[str, None] = TTLCache(MOST_RENEWED, RENEWED_SECONDS)

    async def begin(self, owner: str, roles: Collection[Role]) -> tuple[Session, str]:
        """Return a new session and its token."""
        now = datetime.now(UTC)
        session = Session(
            session_id=secrets.token_urlsafe(24),
            owner=owner,
            roles=sorted(roles),
            created_at=now,
            expires_at=now + LIFETIME,
        )
        await self._store.insert(session)
        return session, self._signed(session)

    async def go_on(self, session_id: str) -> tuple[Session, str] | None:
        """Return a session that goes on, as if it were used, and its token; None when it was ended."""
        session = await self._store.extend(session_id, datetime.now(UTC) + LIFETIME, LONGEST)
        return None if session is None else (session, self._signed(session))

    async def renewed(self, caller: Caller) -> str | None:
        """Return a new cookie for a session that has been used for a while; None when the old one does."""
        session_id = caller.session_id
        if session_id is None or session_id in self._renewed or caller.expires_at is None:
            return None
        if caller.expires_at - datetime.now(UTC) > LIFETIME - RENEWED_AFTER:
            return None
        try:
            found = await self.go_on(session_id)
        except Exception as error:  # noqa: BLE001 - the session that there is serves on
            log.warning("session not renewed", reason=reason_of(error))
            return None
        self._renewed[session_id] = None
        return None if found is None else cookie(found[1])

    async def end(self, session_id: str) -> bool:
        """End the session; False when it had ended."""
        return await self._store.remove(session_id)

    def _signed(self, session: Session) -> str:
        if self._tokens is None:
            raise RuntimeError("no login is needed here")
        return self._tokens.sign(SESSION, session.expires_at, sid=session.session_id, sub=session.owner)


def cookie(token: str) -> str:
    """Return the Set-Cookie that hands a session to a browser (RFC 6265, section 4.1)."""
    return f"{SESSION_COOKIE}={token}; {_ATTRIBUTES}; Max-Age={round(LIFETIME.total_seconds())}"
