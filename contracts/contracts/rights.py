"""What a caller may do: rights, and the roles and scopes that give them."""

from collections.abc import Iterable
from enum import StrEnum


class Right(StrEnum):
    """One thing that callers may do; the scopes of API keys have the same names."""

    CATALOGUE_READ = "catalogue:read"
    """Read tokens, scripts, actors and reference audio, and count a view."""
    CATALOGUE_WRITE = "catalogue:write"
    """Change the catalogue, and its reference audio."""
    JOBS_OWN = "jobs:own"
    """Upload; list, read, hear, stream, cancel, purge, retry and share one's own jobs."""
    JOBS_ALL = "jobs:all"
    """The same with everybody's jobs."""
    OPERATE = "operate"
    """Read metrics, and health in detail."""


class Role(StrEnum):
    """What an issuer says that a person is. Who has none of these is a learner."""

    LEARNER = "learner"
    EDITOR = "editor"
    OPERATOR = "operator"


_LEARNER = frozenset({Right.CATALOGUE_READ, Right.JOBS_OWN})
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.LEARNER: _LEARNER,
    Role.EDITOR: _LEARNER | {Right.CATALOGUE_WRITE},
    Role.OPERATOR: frozenset(Right),
}


def roles_named(names: Iterable[str]) -> frozenset[Role]:
    """Return the roles among these names, in any case; a learner when there are none."""
    known = {role.value for role in Role}
    found = frozenset(Role(name.lower()) for name in names if name.lower() in known)
    return found or frozenset({Role.LEARNER})


def rights_of_scopes(scopes: Iterable[Right]) -> frozenset[Right]:
    """Return what an API key's scopes give together: everybody's jobs are one's own too."""
    found = frozenset(scopes)
    return found | {Right.JOBS_OWN} if Right.JOBS_ALL in found else found


def rights_of(roles: Iterable[Role]) -> frozenset[Right]:
    """Return what the roles give together."""
    return frozenset[Right]().union(*(RIGHTS[role] for role in roles))
