"""Callers of a stack with AUTH=required: people whom its own OpenID Connect provider knows, and machines."""

from datetime import UTC, datetime
from typing import Any

from contracts import accounts
from contracts.rights import Right
from local_stack.stack import Stack
from tests.support.operator import sorictl


def bearer(credential: str) -> dict[str, str]:
    """The header of a call with an id token or an API key."""
    return {"Authorization": f"Bearer {credential}"}


def person(stack: Stack, name: str) -> dict[str, str]:
    """The header of a call of `learner`, `editor`, `operator`, or somebody else, who is a learner."""
    return bearer(stack.id_token(name))


async def kept_key(database: Any, *scopes: Right, **changed: Any) -> str:
    """A new API key with these scopes, put where keys are kept; with changes to its document."""
    key = accounts.new_key()
    digest, now = accounts.key_sha256(key), datetime.now(UTC)
    kept = accounts.ApiKey(key_sha256=digest, key_id=digest[:32], name="a test's", scopes=list(scopes), created_at=now)
    await database[accounts.API_KEYS].insert_one(kept.model_copy(update=changed).model_dump(by_alias=True))
    return key


async def new_key(stack: Stack, *scopes: str, name: str = "a test") -> str:
    """A new API key with these scopes, for an hour."""
    options = [f"--scope={scope}" for scope in scopes]
    said = await sorictl(stack.home, stack.settings, "keys", "create", name, "--expires", "1h", *options)
    assert said.status == 0, said.err
    return said.out.strip()
