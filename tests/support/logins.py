"""Callers of a stack with AUTH=required: people whom its own OpenID Connect provider knows, and machines."""

import os
import subprocess
import sys

from local_stack.stack import Stack


def bearer(credential: str) -> dict[str, str]:
    """The header of a call with an id token or an API key."""
    return {"Authorization": f"Bearer {credential}"}


def person(stack: Stack, name: str) -> dict[str, str]:
    """The header of a call of `learner`, `editor`, `operator`, or somebody else, who is a learner."""
    return bearer(stack.id_token(name))


def sorictl(stack: Stack, *command: str) -> str:
    """What the operator's command says; AssertionError when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "sorictl", *command],
        env={**os.environ, **stack.settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def machine(stack: Stack, *scopes: str) -> dict[str, str]:
    """The header of a call with a new API key of these scopes."""
    options = [f"--scope={scope}" for scope in scopes]
    return bearer(sorictl(stack, "keys", "create", "a test", "--expires", "1h", *options).strip())
