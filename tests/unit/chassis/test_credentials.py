"""What a request says of who it comes from: a bearer token or a cookie, and nothing that only looks like one."""

import pytest

from chassis.identity.caller import InvalidCredentialError
from chassis.identity.credentials import MOST_CHARACTERS, Credential, credential_of

Headers = list[tuple[bytes, bytes]]


def bearer(value: str) -> tuple[bytes, bytes]:
    return b"authorization", value.encode("latin-1")


def cookie(value: str) -> tuple[bytes, bytes]:
    return b"cookie", value.encode("latin-1")


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([cookie("theme=dark")], None),
        ([cookie("sori_session=")], None),
        ([cookie("my_sori_session=T")], None),
        ([bearer("Bearer T")], Credential("T", by_cookie=False)),
        ([bearer("bEARER   T  ")], Credential("T", by_cookie=False)),
        ([cookie("theme=dark; sori_session=T; a=b")], Credential("T", by_cookie=True)),
        ([cookie("sori_session=C"), bearer("Bearer T")], Credential("T", by_cookie=False)),
        ([bearer("Bearer T"), cookie("sori_session=C")], Credential("T", by_cookie=False)),
        ([bearer("Bearer " + "T" * MOST_CHARACTERS)], Credential("T" * MOST_CHARACTERS, by_cookie=False)),
    ],
)
def test_a_token_is_read_from_the_header_or_else_from_the_cookie(headers: Headers, found: Credential | None) -> None:
    assert credential_of(headers) == found


@pytest.mark.parametrize(
    "headers",
    [
        [bearer("")],
        [bearer("Bearer")],
        [bearer("Bearer ")],
        [bearer("T")],
        [bearer("BearerT")],
        [bearer("Basic dTpw")],
        [bearer("Digest T")],
        [bearer("Bearer é")],
        [bearer("Bearer T"), bearer("Bearer T")],
        [bearer(""), cookie("sori_session=C")],
        [bearer("Basic dTpw"), cookie("sori_session=C")],
        [bearer("Bearer " + "T" * (MOST_CHARACTERS + 1))],
        [cookie("sori_session=" + "T" * (MOST_CHARACTERS + 1))],
    ],
)
def test_a_header_that_is_no_bearer_token_is_refused_whatever_the_cookie(headers: Headers) -> None:
    with pytest.raises(InvalidCredentialError):
        credential_of(headers)
