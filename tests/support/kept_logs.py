"""Keeps the logs of a stack whose test has failed, where they can be read after the stack is gone."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from local_stack.settings import ROOT
from local_stack.stack import Stack

FOLDER = ROOT / ".sori" / "fault-logs"


@contextmanager
def kept_on_failure(stack: Stack, name: str) -> Iterator[None]:
    """Copy the stack's logs to `.sori/fault-logs/<name>` when the block fails, and say so."""
    try:
        yield
    except BaseException:
        keep(stack, name)
        raise


def keep(stack: Stack, name: str) -> None:
    """Copy the stack's logs to `.sori/fault-logs/<name>`, and say so."""
    kept = FOLDER / name
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(stack.home / "logs", kept)
    print(f"The logs of this run are in {kept}", flush=True)
