"""Who callers are, by what they send and what MongoDB says of sessions and keys; for how long, and at what cost."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey
from pydantic import SecretStr

from chassis.errors import AwayError
from chassis.identity import identity as identity_module
from chassis.identity.caller import Caller, InvalidCredentialError, Kind
from chassis.identity.identity import CACHE_SECONDS, Identity
from chassis.identity.own_tokens import SESSION, OwnTokens
from chassis.identity.settings import AuthSettings
from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.accounts import API_KEYS, SESSIONS, Session, key_sha256, new_key, person
from contracts.rights import Right, Role
from gateway.accounts.sessions import LIFETIME, LONGEST, RENEWED_AFTER, Sessions
from gateway.accounts.store import SessionStore
from local_stack.stack import Stack
from notifier.caller_checks import LOOK_SECONDS
from tests.support.databases import own_database, profiled
from tests.support.issuer import AUDIENCE, Issuer, running_issuer, session_keys
from tests.support.logins import kept_key
from tests.support.waiting import until

OWN_KEY = ECKey.generate_key("P-256", {"kid": "own"})
NOW = timedelta()
SKEW = timedelta(seconds=60)
PROMISED_SECONDS = 60.0
"""How soon the end of a credential is noticed everywhere."""


def ago(age: timedelta) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - age


@dataclass
class Here:
    """A service that asks who its callers are, and the collections that it reads."""

    identity: Identity
    sessions: Sessions
    issuer: Issuer
    url: str
    mongodb: MongoDB

    async def caller(self, token: str) -> Caller:
        return await self.identity.caller([(b"authorization", f"Bearer {token}".encode())])

    async def refused(self, token: str) -> InvalidCredentialError:
        with pytest.raises(InvalidCredentialError) as raised:
            await self.caller(token)
        return raised.value

    async def key(self, *scopes: Right, **changed: Any) -> str:
        """A new API key with these scopes."""
        return await kept_key(self.mongodb.client.get_default_database(), *scopes, **changed)

    async def session(self, *roles: Role) -> tuple[str, str]:
        """The id of a new session of `user:…`, and its token."""
        session, token = await self.sessions.begin(person("i", "s"), roles)
        return session.session_id, token

    def collection(self, name: str) -> Any:
        return self.mongodb.collection(name)


@pytest.fixture
async def here(stack: Stack) -> AsyncIterator[Here]:
    async with own_database(stack) as url, running_issuer() as issuer:
        mongodb = MongoDB(url, REQUEST_LIMITS)
        identity = Identity(settings(issuer.url), mongodb, [Right.CATALOGUE_READ])
        yield Here(identity, Sessions(SessionStore(mongodb), identity.own_tokens), issuer, url, mongodb)
        await identity.stop()
        mongodb.close()


def settings(issuer: str) -> AuthSettings:
    keys = SecretStr(session_keys(OWN_KEY))
    return AuthSettings(auth="required", oidc_issuers=issuer, oidc_audiences=AUDIENCE, session_keys=keys)


async def test_who_says_nothing_is_anonymous_and_has_the_rights_of_everybody(here: Here) -> None:
    caller = await here.identity.caller([(b"cookie", b"theme=dark")])
    assert (caller.kind, caller.owner) == (Kind.ANONYMOUS, None)
    assert caller.rights == {Right.CATALOGUE_READ}
    assert not caller.sees(None)


async def test_a_person_has_the_rights_of_their_roles(here: Here) -> None:
    caller = await here.caller(here.issuer.token(sub="ann", roles=["editor"]))
    assert (caller.kind, caller.owner) == (Kind.PERSON, person(here.issuer.url, "ann"))
    assert caller.may(Right.CATALOGUE_WRITE)
    assert not caller.may(Right.JOBS_ALL)
    assert caller.sees(caller.owner)
    assert not caller.sees(None)
    assert not caller.sees(person(here.issuer.url, "bob"))


async def test_a_session_is_whoever_began_it(here: Here) -> None:
    session_id, token = await here.session(Role.OPERATOR)
    caller = await here.caller(token)
    assert caller.owner == person("i", "s")
    assert caller.roles == {Role.OPERATOR}
    assert (caller.credential, caller.by_cookie) == (f"session:{session_id}", False)
    by_cookie = await here.identity.caller([(b"cookie", f"sori_session={token}".encode())])
    assert (by_cookie.owner, by_cookie.by_cookie) == (caller.owner, True)


async def test_a_key_has_its_scopes_and_jobs_of_its_own(here: Here) -> None:
    first, second = [await here.caller(await here.key(Right.JOBS_OWN)) for _ in range(2)]
    assert first.kind == Kind.MACHINE
    assert first.rights == {Right.JOBS_OWN}
    assert first.owner != second.owner
    assert not first.sees(second.owner)
    for_all = await here.caller(await here.key(Right.JOBS_ALL))
    assert for_all.rights == {Right.JOBS_ALL, Right.JOBS_OWN}
    assert for_all.sees(first.owner)


async def test_the_day_is_noted_on_which_a_key_is_used_and_not_one_on_which_it_is_refused(here: Here) -> None:
    used, expired = await here.key(), await here.key(expires_at=ago(2 * SKEW))
    await here.caller(used)
    await here.refused(expired)
    keys = here.collection(API_KEYS)
    days = [(await keys.find_one({"_id": key_sha256(key)}))["last_used"] for key in (used, expired)]
    assert days == [datetime.now(UTC).date().isoformat(), None]


async def test_keys_and_sessions_end(here: Here) -> None:
    assert not (await here.refused(new_key())).expired
    assert not (await here.refused(await here.key(revoked_at=ago(NOW)))).expired
    assert (await here.refused(await here.key(expires_at=ago(SKEW)))).expired
    await here.caller(await here.key(expires_at=ago(SKEW / 2)))
    session_id, token = await here.session()
    await here.sessions.end(session_id)
    assert (await here.refused(token)).expired
    session_id, token = await here.session()
    await here.collection(SESSIONS).update_one({"_id": session_id}, {"$set": {"expires_at": ago(2 * SKEW)}})
    assert (await here.refused(token)).expired


async def test_what_was_found_good_is_not_looked_at_again_for_a_while(here: Here) -> None:
    key, (session_id, token) = await here.key(Right.OPERATE), await here.session()
    async with profiled(here.url) as entries:
        for _ in range(20):
            await here.caller(key)
            await here.caller(token)
    assert [entry["op"] for entry in entries if "api_keys" in entry["ns"]] == ["query", "update"]
    assert [entry["op"] for entry in entries if "sessions" in entry["ns"]] == ["query"]
    await here.sessions.end(session_id)
    await here.caller(token)
    here.identity.forget()
    await here.refused(token)


async def test_a_revocation_is_noticed_when_the_while_is_over(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "CACHE_SECONDS", 0.3)
    impatient = Identity(settings(here.issuer.url), here.mongodb)
    key = await here.key(Right.OPERATE)
    headers = [(b"authorization", f"Bearer {key}".encode())]
    assert (await impatient.caller(headers)).may(Right.OPERATE)
    await here.collection(API_KEYS).update_one({"_id": key_sha256(key)}, {"$set": {"revoked_at": ago(NOW)}})

    async def is_refused() -> bool:
        try:
            await impatient.caller(headers)
        except InvalidCredentialError:
            return True
        return False

    await until(is_refused, "the key's end", limit_seconds=5)
    await impatient.stop()


async def test_open_streams_are_told_whose_caller_counts_no_more(here: Here) -> None:
    keys = [await here.caller(await here.key(Right.JOBS_OWN)) for _ in range(2)]
    sessions = [await here.caller((await here.session())[1]) for _ in range(2)]
    people = [Caller(Kind.PERSON, frozenset(), expires_at=ago(age)) for age in (-SKEW, NOW, SKEW / 2)]
    callers = [*keys, *sessions, *people]
    assert await here.identity.over(callers) == {people[2]}
    await here.collection(API_KEYS).update_one(
        {"_id": (keys[0].credential or "").removeprefix("key:")}, {"$set": {"revoked_at": ago(NOW)}}
    )
    await here.sessions.end(sessions[0].session_id or "")
    assert await here.identity.over(callers) == {keys[0], sessions[0], people[2]}
    assert await here.identity.over([]) == set()


async def test_an_expiry_needs_no_mongodb(here: Here) -> None:
    key = await here.caller(await here.key(Right.JOBS_OWN))
    over = Caller(Kind.PERSON, frozenset(), expires_at=ago(SKEW))
    mongodb = MongoDB("mongodb://127.0.0.1:1/sori", REQUEST_LIMITS)
    alone = Identity(settings(here.issuer.url), mongodb)
    assert await alone.over([key, over]) == {over}
    with pytest.raises(AwayError):
        await alone.over([key])
    await alone.stop()
    mongodb.close()


async def test_ends_are_noticed_within_the_minute_that_is_promised(here: Here) -> None:
    assert CACHE_SECONDS < PROMISED_SECONDS
    # The longest that a stream goes on: it was looked at just before its caller counted as over.
    unnoticed = timedelta(seconds=PROMISED_SECONDS - LOOK_SECONDS)
    caller = Caller(Kind.PERSON, frozenset(), expires_at=ago(unnoticed))
    assert await here.identity.over([caller]) == {caller}


async def test_who_cannot_be_looked_up_is_not_let_in_and_who_was_lately_goes_on(here: Here) -> None:
    key, unknown = await here.key(Right.OPERATE), await here.key(Right.OPERATE)
    await here.caller(key)
    here.mongodb.close()
    assert (await here.caller(key)).may(Right.OPERATE)
    nowhere = MongoDB("mongodb://127.0.0.1:1/sori", REQUEST_LIMITS)
    away = Identity(settings(here.issuer.url), nowhere)
    for token in (unknown, OwnTokens(session_keys(OWN_KEY)).sign(SESSION, ago(-SKEW), sid="x")):
        with pytest.raises(AwayError):
            await away.caller([(b"authorization", f"Bearer {token}".encode())])
    # An issuer's token needs no MongoDB.
    assert (await away.caller([(b"authorization", f"Bearer {here.issuer.token()}".encode())])).is_known
    await away.stop()
    nowhere.close()


def caller_of(session: Session, remaining: timedelta) -> Caller:
    """Who uses the session when so much of it is left."""
    return Caller(Kind.PERSON, frozenset(), credential=f"session:{session.session_id}", expires_at=ago(NOW) + remaining)


async def test_a_session_is_renewed_in_use_once_and_no_longer_than_a_week(here: Here) -> None:
    session, _ = await here.sessions.begin(person("i", "s"), [])
    documents = here.collection(SESSIONS)

    async def expires_at() -> datetime:
        found: datetime = (await documents.find_one({"_id": session.session_id}))["expires_at"]
        return found

    assert await here.sessions.renewed(caller_of(session, LIFETIME - RENEWED_AFTER / 2)) is None
    caller = caller_of(session, LIFETIME - 2 * RENEWED_AFTER)
    await documents.update_one({"_id": session.session_id}, {"$set": {"expires_at": caller.expires_at}})
    renewed = await here.sessions.renewed(caller)
    assert renewed is not None
    assert await expires_at() > ago(timedelta(minutes=1)) + LIFETIME
    assert await here.sessions.renewed(caller) is None, "requests that come together renew it once"
    token = renewed.split(";")[0].removeprefix("sori_session=")
    assert (await here.caller(token)).credential == caller.credential
    began = ago(LONGEST - RENEWED_AFTER)
    await documents.update_one({"_id": session.session_id}, {"$set": {"created_at": began}})
    assert await here.sessions.go_on(session.session_id) is not None
    assert await expires_at() == began + LONGEST
    await here.sessions.end(session.session_id)
    assert await here.sessions.go_on(session.session_id) is None


async def cheapest_ms(work: Callable[[], Awaitable[object]], times: int) -> float:
    """The CPU time of one call in milliseconds, of the best of some rounds: other programs only make it worse."""
    rounds = []
    for _ in range(7):
        began = time.thread_time()
        for _ in range(times):
            await work()
        rounds.append((time.thread_time() - began) / times)
    return min(rounds) * 1000


async def test_verifying_a_token_is_cheap_and_knowing_it_again_cheaper(here: Here) -> None:
    token = here.issuer.token()
    headers = [(b"host", b"sori.example"), (b"accept", b"*/*"), (b"authorization", f"Bearer {token}".encode())]
    assert await cheapest_ms(lambda: here.identity.issuers.person(token), 100) < 0.3
    assert await cheapest_ms(lambda: here.identity.caller(headers), 500) < 0.02
