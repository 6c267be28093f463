"""How somebody who was refused is told to come in."""

import pytest

from chassis.identity.challenges import challenge
from contracts import problems
from contracts.problems import ProblemKind


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (problems.LOGIN_REQUIRED, 'Bearer realm="sori"'),
        (problems.TOKEN_INVALID, 'Bearer realm="sori", error="invalid_token"'),
        (problems.TOKEN_EXPIRED, 'Bearer realm="sori", error="invalid_token"'),
        (problems.NOT_ALLOWED, 'Bearer realm="sori", error="insufficient_scope"'),
        (problems.SIGNATURE_INVALID, None),
        (problems.JOB_NOT_FOUND, None),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_only_what_another_credential_would_help_has_a_challenge(kind: ProblemKind, said: str | None) -> None:
    assert challenge(kind).get("WWW-Authenticate") == said
