"""Tells who a request comes from, and whether that still holds."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from cachetools import TTLCache

from chassis.errors import BackEndError
from chassis.identity.caller import ANYBODY, BY_KEY, BY_SESSION, Caller, InvalidCredentialError, Kind
from chassis.identity.credentials import credential_of
from chassis.identity.issuers import Issuers, peeked
from chassis.identity.own_tokens import ISSUER, SESSION, SKEW_SECONDS, TICKET, OwnTokens
from chassis.identity.settings import AuthSettings
from chassis.identity.store import Credentials
from chassis.mongodb import MongoDB
from contracts.accounts import KEY_PREFIX, key_sha256
from contracts.rights import Right, rights_of, rights_of_scopes, roles_named

log = structlog.get_logger()

CACHE_SECONDS = 30
"""How long a credential that was found good is not looked at again. Open streams are looked at as often, so both
together take less than a minute to notice that it was revoked."""
MOST_CACHED = 10_000
_SKEW = timedelta(seconds=SKEW_SECONDS)
_STREAM_SKEW = _SKEW / 2
"""What is open ends within a minute of its caller's expiry, so that it gets less grace than a request."""
OFF_WARNING = "AUTH=off: whoever reaches this service may read and change everything; AUTH=required asks for a login"


@dataclass(frozen=True)
class Ticket:
    """A way into one stream of one job; `caller` is who asked for it."""

    ticket_id: str
    job_id: str
    caller: Caller


class Identity:
    """Who callers are. `anonymous` is what somebody who does not say so may do."""

    def __init__(self, settings: AuthSettings, mongodb: MongoDB, anonymous: Collection[Right] = ()) -> None:
        self.is_required = settings.auth == "required"
        self.issuers = Issuers(settings.issuers, settings.audiences, settings.oidc_roles_claim)
        keys = settings.session_keys
        self.own_tokens = None if keys is None or not self.is_required else OwnTokens(keys.get_secret_value())
        self._credentials = Credentials(mongodb)
        self.anonymous = Caller(Kind.ANONYMOUS, frozenset(anonymous))
        self._cache: TTLCache[bytes, Caller] = TTLCache(MOST_CACHED, CACHE_SECONDS)

    def start(self) -> None:
        """Say in the log when nobody has to log in."""
        if not self.is_required:
            log.warning(OFF_WARNING)

    async def stop(self) -> None:
        """Close the connections to the issuers."""
        await self.issuers.close()

    async def warnings(self) -> list[str]:
        """Return what somebody should look at."""
        return [] if self.is_required else [OFF_WARNING]

    async def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Return who a request with these headers comes from.

        Raises InvalidCredentialError for a credential that does not count, and AwayError when MongoDB or the issuer has
        to be asked about it and is away.
        """
        if not self.is_required:
            return ANYBODY
        credential = credential_of(headers)
        if credential is None:
            return self.anonymous
        caller = await self._known(credential.token)
        return replace(caller, by_cookie=True) if credential.by_cookie else caller

    async def ticket(self, token: str) -> Ticket:
        """Return what a ticket is for; InvalidCredentialError when it does not count, or not any more.

        What it was asked for with is looked at anew, in MongoDB, whose AwayError is raised: a replica that trusted it
        for a moment after its revocation may have given the ticket out then.
        """
        claims = self._own().claims(token, TICKET)
        try:
            until = claims.get("until")
            caller = Caller(
                Kind.PERSON,
                frozenset(),
                credential=claims.get("credential"),
                expires_at=None if until is None else datetime.fromtimestamp(until, UTC),
            )
            ticket = Ticket(str(claims["jti"]), str(claims["job_id"]), caller)
        except (KeyError, TypeError, ValueError):
            raise InvalidCredentialError("no ticket") from None
        if _expired(caller, datetime.now(UTC), _STREAM_SKEW) or await self._revoked([caller]):
            raise InvalidCredentialError("what the ticket was asked for with counts no more", expired=True)
        return ticket

    async def over(self, callers: Collection[Caller]) -> set[Caller]:
        """Return those of the callers whose credential has expired or was revoked.

        While MongoDB is away, those that have expired; AwayError when there are none.
        """
        expired = {one for one in callers if _expired(one, datetime.now(UTC), _STREAM_SKEW)}
        try:
            revoked = await self._revoked(callers)
        except BackEndError:
            if not expired:
                raise
            return expired
        if revoked:
            self.forget()  # they come again at once, and have to learn why they were sent away
        return revoked | expired

    async def _revoked(self, callers: Collection[Caller]) -> set[Caller]:
        sessions, keys = _named(callers, BY_SESSION), _named(callers, BY_KEY)
        standing: set[str] = set()
        if sessions:
            standing |= {BY_SESSION + one for one in await self._credentials.standing_sessions(sessions)}
        if keys:
            standing |= {BY_KEY + one for one in await self._credentials.standing_keys(keys)}
        return {one for one in callers if one.credential is not None and one.credential not in standing}

    def forget(self) -> None:
        """Look at every credential again: one was just found to be revoked."""
        self._cache.clear()

    async def _known(self, token: str) -> Caller:
        digest = hashlib.sha256(token.encode()).digest()
        caller = self._cache.get(digest)
        if caller is None:
            caller = await self._looked_at(token)
            self._cache[digest] = caller
        if _expired(caller, datetime.now(UTC)):
            raise InvalidCredentialError("expired", expired=True)
        return caller

    async def _looked_at(self, token: str) -> Caller:
        if token.startswith(KEY_PREFIX):
            return await self._machine(token)
        _, unproven = peeked(token)
        if unproven.get("iss") == ISSUER:
            return await self._in_session(self._own().claims(token, SESSION))
        found = await self.issuers.person(token)
        return Caller(Kind.PERSON, rights_of(found.roles), found.owner, found.roles, expires_at=found.expires_at)

    async def _machine(self, token: str) -> Caller:
        key = await self._credentials.key(key_sha256(token))
        if key is None or key.revoked_at is not None:
            raise InvalidCredentialError("no such key")
        caller = Caller(
            Kind.MACHINE,
            rights_of_scopes(key.scopes),
            key.owner,
            credential=BY_KEY + key.key_sha256,
            expires_at=key.expires_at,
        )
        if not _expired(caller, datetime.now(UTC)):
            await self._credentials.note_use(key)
        return caller

    async def _in_session(self, claims: dict[str, Any]) -> Caller:
        session = await self._credentials.session(str(claims.get("sid")))
        if session is None:
            raise InvalidCredentialError("the session was ended", expired=True)
        roles = roles_named(session.roles)
        return Caller(
            Kind.PERSON,
            rights_of(roles),
            session.owner,
            roles,
            credential=BY_SESSION + session.session_id,
            expires_at=session.expires_at,
        )

    def _own(self) -> OwnTokens:
        if self.own_tokens is None:
            raise InvalidCredentialError("no login is needed here")
        return self.own_tokens


def _expired(caller: Caller, now: datetime, skew: timedelta = _SKEW) -> bool:
    # Issuers' clocks may differ from ours; what MongoDB says of keys and sessions is given the same grace.
    return caller.expires_at is not None and caller.expires_at + skew <= now


def _named(callers: Collection[Caller], prefix: str) -> set[str]:
    credentials = {caller.credential for caller in callers if caller.credential is not None}
    return {one.removeprefix(prefix) for one in credentials if one.startswith(prefix)}
