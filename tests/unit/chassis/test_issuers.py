"""Issuers of identity: whose tokens count, for how long their keys serve, and what errs without letting anybody in."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from chassis.errors import AwayError
from chassis.identity import issuers as issuers_module
from chassis.identity.caller import InvalidCredentialError
from chassis.identity.issuers import GOOGLE, MOST_BYTES, Issuers
from contracts.accounts import person
from contracts.rights import Role
from tests.support.issuer import AUDIENCE, CONFIGURATION, KEYS, Issuer, running_issuer, signed, signed_with_public_key
from tests.support.waiting import until_true

ONCE = [CONFIGURATION, KEYS]
"""What is asked for to fetch the keys."""
OTHER = RSAKey.generate_key(2048, {"kid": "other"})
SKEW = 60


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as running:
        yield running


@asynccontextmanager
async def trusting(*urls: str, roles_claim: str = "roles") -> AsyncIterator[Issuers]:
    trusted = Issuers(urls, ["another", AUDIENCE], roles_claim)
    try:
        yield trusted
    finally:
        await trusted.close()


@pytest.fixture
async def issuers(issuer: Issuer) -> AsyncIterator[Issuers]:
    async with trusting(issuer.url) as trusted:
        yield trusted


@pytest.fixture(scope="module")
async def steady() -> AsyncIterator[tuple[Issuer, Issuers]]:
    """An issuer that does not err, and whose keys are known."""
    async with running_issuer() as running, trusting(running.url) as trusted:
        await trusted.person(running.token())
        yield running, trusted


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are fetched again as soon as there is a reason."""
    monkeypatch.setattr(issuers_module, "BETWEEN_FETCHES_SECONDS", 0.0)


async def refused(issuers: Issuers, token: str) -> InvalidCredentialError:
    with pytest.raises(InvalidCredentialError) as raised:
        await issuers.person(token)
    return raised.value


async def test_a_person_is_the_issuers_and_its_name_for_them(issuer: Issuer, issuers: Issuers) -> None:
    found = await issuers.person(issuer.token(sub="ann", email="ann@example.org"))
    assert found.owner == person(issuer.url, "ann")
    assert found.roles == {Role.LEARNER}
    assert found.claims["email"] == "ann@example.org"
    assert (await issuers.person(issuer.token(sub="ann"))).owner == found.owner
    assert (await issuers.person(issuer.token(sub="bob"))).owner != found.owner


async def test_keys_are_fetched_once_for_all_who_come_at_once(issuer: Issuer, issuers: Issuers) -> None:
    await asyncio.gather(*(issuers.person(issuer.token(sub=str(number))) for number in range(20)))
    await issuers.person(issuer.token())
    assert issuer.asked == ONCE


async def test_a_new_key_of_the_issuers_is_found_when_it_signs(
    issuer: Issuer, issuers: Issuers, impatient: None
) -> None:
    old = issuer.token()
    await issuers.person(old)
    issuer.rotate()
    await issuers.person(issuer.token())
    await refused(issuers, old)


async def test_keys_that_are_not_there_have_the_issuer_asked_at_a_bounded_rate(
    issuer: Issuer, issuers: Issuers
) -> None:
    await issuers.person(issuer.token())
    for number in range(20):
        await refused(issuers, signed(issuer.claims(), OTHER, kid=f"guessed {number}"))
    assert issuer.asked == ONCE


async def test_known_keys_serve_while_the_issuer_is_away_and_others_let_nobody_in(
    issuer: Issuer, issuers: Issuers, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await issuers.person(issuer.token())
    monkeypatch.setattr(issuers_module, "FRESH_SECONDS", 0.0)
    issuer.is_away = True
    for _ in range(3):
        await issuers.person(issuer.token())
    await until_true(lambda: len(issuer.asked) > len(ONCE), "the issuer is asked again")
    with pytest.raises(AwayError):
        await issuers.person(signed(issuer.claims(), OTHER))
    await refused(issuers, signed(issuer.claims(), OTHER, kid="first"))
    issuer.is_away = False
    await refused(issuers, signed(issuer.claims(), OTHER))


async def test_an_issuer_that_was_never_reached_lets_nobody_in_until_it_is(
    issuer: Issuer, issuers: Issuers, impatient: None
) -> None:
    issuer.is_away = True
    with pytest.raises(AwayError):
        await issuers.person(issuer.token())
    issuer.is_away = False
    await issuers.person(issuer.token())


async def test_a_slow_issuer_counts_as_away_and_holds_up_nobody_whose_key_is_known(
    issuer: Issuer, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers_module, "FETCH_SECONDS", 0.2)
    async with trusting(issuer.url) as issuers:
        issuer.answers.clear()
        with pytest.raises(AwayError):
            await issuers.person(issuer.token())
        issuer.answers.set()
        await issuers.person(issuer.token())
        monkeypatch.setattr(issuers_module, "FRESH_SECONDS", 0.0)
        monkeypatch.setattr(issuers_module, "FETCH_SECONDS", 30.0)
        issuer.answers.clear()
        async with asyncio.timeout(5):
            await issuers.person(issuer.token())


def changed(**configuration: Any) -> Callable[[Issuer], None]:
    return lambda issuer: issuer.configuration.update(configuration)


def answering(name: str, found: object) -> Callable[[Issuer], None]:
    return lambda issuer: setattr(issuer, name, found)


@pytest.mark.parametrize(
    "err",
    [
        changed(issuer="https://another.example"),
        changed(issuer=None),
        changed(jwks_uri=None),
        changed(jwks_uri=5),
        changed(jwks_uri="file:///etc/passwd"),
        changed(jwks_uri="/keys"),
        answering("configuration", "no JSON"),
        answering("configuration", "[" * 100_000),
        answering("configuration", []),
        answering("keys", []),
        answering("keys", {}),
        answering("keys", {"keys": 5}),
        answering("keys", "x" * (MOST_BYTES + 1)),
        answering("keys", json.dumps({"keys": [], "padding": "x" * MOST_BYTES})),
    ],
)
async def test_documents_that_err_let_nobody_in(
    issuer: Issuer, issuers: Issuers, err: Callable[[Issuer], None]
) -> None:
    err(issuer)
    with pytest.raises(AwayError):
        await issuers.person(issuer.token())


async def test_the_keys_of_a_secure_issuer_are_not_fetched_insecurely(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def plainly(issuers: Any, url: str) -> Any:
        # The issuer's https address, without a certificate.
        asked.append(url)
        return {"issuer": "https://issuer.example", "jwks_uri": issuer.url + KEYS}

    asked: list[str] = []
    monkeypatch.setattr(issuers_module, "fetched", plainly)
    async with trusting("https://issuer.example") as issuers:
        with pytest.raises(AwayError):
            await issuers.person(issuer.token(iss="https://issuer.example"))
    assert asked == ["https://issuer.example" + CONFIGURATION]


KINDS: list[tuple[RSAKey | ECKey | OKPKey, str]] = [
    *((OTHER, alg) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
    (ECKey.generate_key("P-256"), "ES256"),
    (ECKey.generate_key("P-384"), "ES384"),
    (ECKey.generate_key("P-521"), "ES512"),
    (OKPKey.generate_key("Ed25519"), "EdDSA"),
    (OKPKey.generate_key("Ed25519"), "Ed25519"),
]


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # issuers still sign with it
@pytest.mark.parametrize(("key", "alg"), KINDS, ids=[alg for _, alg in KINDS])
@pytest.mark.parametrize("kid", ["a key", None])
async def test_asymmetric_algorithms_count_with_and_without_a_key_id(
    issuer: Issuer, issuers: Issuers, key: Any, alg: str, kid: str | None
) -> None:
    named = {"kid": kid} if kid else {}
    issuer.keys = {"keys": [{**key.as_dict(private=False), **named}]}
    assert (await issuers.person(signed(issuer.claims(), key, alg, kid=kid))).owner


async def test_keys_that_are_not_for_signatures_are_passed_over(issuer: Issuer, issuers: Issuers) -> None:
    first = issuer.key.as_dict(private=False)
    secret = OctKey.generate_key(256, {"kid": "secret"})
    agreement = OKPKey.generate_key("X25519", {"kid": "agreement"})
    issuer.keys = {
        "keys": [
            *(None, 5, "x", [], {}, {"kty": "RSA"}, {"kty": ["RSA"]}, {"kty": "MLWE", "kid": "first"}),
            {"kty": "RSA", "kid": "first", "n": "!", "e": "é"},
            {"kty": "EC", "kid": "first", "crv": "P-256", "x": "AA", "y": "AA"},
            {**OTHER.as_dict(private=False), "use": "enc", "kid": "for encryption"},
            {**OTHER.as_dict(private=False), "alg": "RS512", "kid": "for another algorithm"},
            secret.as_dict(private=True),
            agreement.as_dict(private=False),
            first,
        ]
    }
    await issuers.person(issuer.token())
    for token in (
        signed(issuer.claims(), OTHER, kid="for encryption"),
        signed(issuer.claims(), OTHER, kid="for another algorithm"),
        signed(issuer.claims(), secret, "HS256"),
        signed(issuer.claims(), OKPKey.generate_key("Ed25519"), "Ed25519", kid="agreement"),
    ):
        await refused(issuers, token)


@pytest.mark.parametrize(
    "forge",
    [
        lambda issuer: signed(issuer.claims(), OTHER, kid="first"),
        lambda issuer: signed(issuer.claims(), issuer.key, "none"),
        lambda issuer: signed(issuer.claims(), issuer.key, "none", kid=None),
        lambda issuer: signed_with_public_key(issuer.claims(), issuer.key),
        lambda issuer: signed(issuer.claims(), ECKey.generate_key("P-256"), "ES256", kid="first"),
        lambda issuer: signed(issuer.claims(), issuer.key, jwk=OTHER.as_dict(private=False)).rsplit(".", 1)[0] + ".AA",
        lambda issuer: issuer.token()[:-4] + "AAAA",
        lambda issuer: issuer.token(iss="https://another.example"),
        lambda issuer: issuer.token(iss=issuer.url + "/"),
        lambda issuer: issuer.token(iss=[issuer.url]),
        lambda issuer: issuer.token(iss=None),
        lambda issuer: issuer.token(aud="another's"),
        lambda issuer: issuer.token(aud=["another's"]),
        lambda issuer: issuer.token(aud=[]),
        lambda issuer: issuer.token(aud=None),
        lambda issuer: issuer.token(sub=None),
        lambda issuer: issuer.token(sub=""),
        lambda issuer: issuer.token(sub=5),
        lambda issuer: issuer.token(exp=None),
        lambda issuer: issuer.token(exp="tomorrow"),
        lambda issuer: issuer.token(exp=10**20),
        lambda issuer: issuer.token(exp=1e300),
        lambda issuer: issuer.token(exp=float("inf")),
        lambda issuer: issuer.token(nbf=int(time.time()) + SKEW + 10),
        lambda issuer: issuer.token(iat=int(time.time()) + SKEW + 10),
        lambda issuer: issuer.token(sub="\ud800"),
        lambda issuer: issuer.token().replace(".", ""),
        lambda issuer: issuer.token().rsplit(".", 1)[0],
    ],
)
async def test_forged_and_faulty_tokens_count_for_nothing(
    steady: tuple[Issuer, Issuers], forge: Callable[[Issuer], str]
) -> None:
    issuer, issuers = steady
    assert not (await refused(issuers, forge(issuer))).expired


@pytest.mark.parametrize("token", ["", "..", "e30.e30.e30", "W10.W10.", "W1tbW1tb" * 900 + ".e30.", "é.é.é"])
async def test_what_is_no_token_counts_for_nothing(steady: tuple[Issuer, Issuers], token: str) -> None:
    assert not (await refused(steady[1], token)).expired


async def test_clocks_may_differ_by_a_minute(steady: tuple[Issuer, Issuers]) -> None:
    issuer, issuers = steady
    now = int(time.time())
    await issuers.person(issuer.token(nbf=now + SKEW - 10, iat=now + SKEW - 10))
    await issuers.person(issuer.token(exp=now - SKEW + 10))
    assert (await refused(issuers, issuer.token(exp=now - SKEW - 1))).expired


async def test_an_issuer_does_not_speak_for_another(issuer: Issuer) -> None:
    async with running_issuer() as other, trusting(issuer.url, other.url) as issuers:
        await issuers.person(other.token())
        await refused(issuers, signed(issuer.claims(), OTHER, kid="first"))
        mine, others = [await issuers.person(each.token(sub="ann")) for each in (issuer, other)]
        assert mine.owner != others.owner


async def test_google_may_name_itself_without_its_scheme(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def plainly(client: Any, url: str) -> Any:
        return {"issuer": GOOGLE, "jwks_uri": GOOGLE + KEYS} if url.endswith(CONFIGURATION) else issuer.keys

    monkeypatch.setattr(issuers_module, "fetched", plainly)
    async with trusting(GOOGLE) as issuers:
        named = [await issuers.person(issuer.token(iss=iss)) for iss in (GOOGLE, "accounts.google.com")]
        assert {found.owner for found in named} == {person(GOOGLE, "somebody")}
        await refused(issuers, issuer.token(iss="http://accounts.google.com"))


@pytest.mark.parametrize(
    ("claim", "claims", "roles"),
    [
        ("roles", {"roles": ["operator"]}, {Role.OPERATOR}),
        ("roles", {"roles": ["Editor", "nothing we know", 5, None]}, {Role.EDITOR}),
        ("roles", {"roles": "editor operator"}, {Role.EDITOR, Role.OPERATOR}),
        ("realm_access.roles", {"realm_access": {"roles": ["editor"]}}, {Role.EDITOR}),
        ("https://sori.example/roles", {"https://sori.example/roles": ["editor"]}, {Role.EDITOR}),
        ("roles", {}, {Role.LEARNER}),
        ("roles", {"roles": []}, {Role.LEARNER}),
        ("roles", {"roles": {"operator": True}}, {Role.LEARNER}),
        ("roles", {"roles": 5}, {Role.LEARNER}),
        ("a.b", {"a": "operator"}, {Role.LEARNER}),
        ("roles", {"role": "operator"}, {Role.LEARNER}),
    ],
)
async def test_roles_come_from_the_claim_and_from_no_other(
    issuer: Issuer, claim: str, claims: dict[str, Any], roles: set[Role]
) -> None:
    async with trusting(issuer.url, roles_claim=claim) as issuers:
        assert (await issuers.person(issuer.token(**claims))).roles == roles
