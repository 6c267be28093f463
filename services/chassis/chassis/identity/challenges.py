"""How somebody who was refused is told to come in (RFC 6750, section 3)."""

from contracts import problems
from contracts.problems import ProblemKind

_REALM = 'Bearer realm="sori"'
_CHALLENGES = {
    problems.LOGIN_REQUIRED: _REALM,
    problems.TOKEN_INVALID: f'{_REALM}, error="invalid_token"',
    problems.TOKEN_EXPIRED: f'{_REALM}, error="invalid_token"',
    problems.NOT_ALLOWED: f'{_REALM}, error="insufficient_scope"',
}


def challenge(kind: ProblemKind) -> dict[str, str]:
    """Return the header that goes with a problem; none with one that no other credential would help."""
    said = _CHALLENGES.get(kind)
    return {} if said is None else {"WWW-Authenticate": said}
