"""Tokens that Sori signs itself: what it takes for one, while its keys are changed too."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from chassis.identity.caller import InvalidCredentialError
from chassis.identity.own_tokens import ISSUER, SESSION, SKEW_SECONDS, TICKET, InvalidKeysError, OwnTokens
from tests.support.issuer import session_keys, signed, signed_with_public_key

OLD, NEW, OTHER = (ECKey.generate_key("P-256", {"kid": kid}) for kid in ("old", "new", "other"))


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    good = {"iss": ISSUER, "aud": SESSION, "iat": now, "exp": now + 600, "sid": "a session"}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def test_a_token_says_what_was_signed() -> None:
    own = OwnTokens(session_keys(NEW))
    assert own.claims(own.sign(SESSION, in_seconds(60), sid="a session"), SESSION)["sid"] == "a session"


def test_keys_are_changed_while_tokens_are_out() -> None:
    before, between, after = (OwnTokens(session_keys(*keys)) for keys in ((OLD,), (NEW, OLD), (NEW,)))
    old, new = (tokens.sign(SESSION, in_seconds(60)) for tokens in (before, between))
    for tokens, token in [(before, old), (between, old), (between, new), (after, new)]:
        assert tokens.claims(token, SESSION)["iss"] == ISSUER
    for tokens, token in [(before, new), (after, old)]:
        with pytest.raises(InvalidCredentialError):
            tokens.claims(token, SESSION)


def test_keys_without_a_name_serve_too() -> None:
    named = [{name: value for name, value in key.as_dict(private=True).items() if name != "kid"} for key in (NEW, OLD)]
    nameless = [ECKey.import_key(key) for key in named]
    both, first = OwnTokens(session_keys(*nameless)), OwnTokens(session_keys(nameless[0]))
    assert both.claims(first.sign(SESSION, in_seconds(60)), SESSION)


def test_public_keys_verify_and_do_not_sign() -> None:
    signing, verifying = OwnTokens(session_keys(NEW)), OwnTokens(session_keys(NEW, private=False))
    assert verifying.claims(signing.sign(SESSION, in_seconds(60)), SESSION)
    assert (signing.can_sign, verifying.can_sign) == (True, False)


def test_a_ticket_is_no_session_and_a_session_no_ticket() -> None:
    own = OwnTokens(session_keys(NEW))
    for made_for, taken_for in [(SESSION, TICKET), (TICKET, SESSION)]:
        with pytest.raises(InvalidCredentialError):
            own.claims(own.sign(made_for, in_seconds(60)), taken_for)


@pytest.mark.parametrize(
    ("audience", "seconds", "counts"),
    [(SESSION, -SKEW_SECONDS + 5, True), (SESSION, -SKEW_SECONDS - 1, False), (TICKET, 5, True), (TICKET, -1, False)],
)
def test_a_session_may_be_over_for_a_minute_of_skew_and_a_ticket_not(
    audience: str, seconds: float, *, counts: bool
) -> None:
    own = OwnTokens(session_keys(NEW))
    token = own.sign(audience, in_seconds(seconds))
    if counts:
        assert own.claims(token, audience)
    else:
        with pytest.raises(InvalidCredentialError) as raised:
            own.claims(token, audience)
        assert raised.value.expired


@pytest.mark.parametrize(
    "forged",
    [
        lambda: signed(claims(), OTHER, "ES256"),
        lambda: signed(claims(), OTHER, "ES256", kid="new"),
        lambda: signed(claims(), OctKey.import_key("k" * 32), "HS256", kid="new"),
        lambda: signed_with_public_key(claims(), NEW),
        lambda: signed(claims(), NEW, "none"),
        lambda: signed(claims(), NEW, "none", kid=None),
        lambda: signed(claims(), RSAKey.generate_key(2048), "RS256", kid="new"),
        lambda: signed(claims(iss="https://issuer.example"), NEW, "ES256"),
        lambda: signed(claims(iss=None), NEW, "ES256"),
        lambda: signed(claims(aud=None), NEW, "ES256"),
        lambda: signed(claims(exp=None), NEW, "ES256"),
        lambda: signed(claims(exp=True), NEW, "ES256"),
        lambda: signed(claims(exp=float("nan")), NEW, "ES256"),
        lambda: signed(claims(nbf=int(time.time()) + 90), NEW, "ES256"),
        lambda: signed(claims(), NEW, "ES256")[:-4] + "AAAA",
        lambda: "a.b.c",
        lambda: "..",
        lambda: "",
        lambda: "é",
    ],
)
def test_what_no_key_of_ours_signed_so_counts_for_nothing(forged: Callable[[], str]) -> None:
    with pytest.raises(InvalidCredentialError):
        OwnTokens(session_keys(NEW)).claims(forged(), SESSION)


@pytest.mark.parametrize(
    "keys",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"keys": []}',
        '{"keys": [null]}',
        '{"keys": [{"kty": "EC"}]}',
        session_keys(NEW, OLD, OTHER),
        session_keys(ECKey.generate_key("P-384")),
        session_keys(RSAKey.generate_key(2048)),  # type: ignore[arg-type] # as somebody might give it
    ],
)
def test_other_keys_are_refused_at_the_start(keys: str) -> None:
    with pytest.raises(InvalidKeysError):
        OwnTokens(keys)
