"""The commands of `python -m local_stack`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from local_stack.settings import given_settings, stack_settings
from local_stack.stack import Stack

app = typer.Typer()


def configured_stack(only_backends: bool = False) -> Stack:
    given = given_settings(os.environ)
    settings = stack_settings(given)
    return Stack(
        settings.home,
        port_base=settings.port_base,
        replicas=settings.replicas,
        given=given,
        only_backends=only_backends,
        timeout=settings.up_timeout,
    )


@app.command()
def up(only_backends: bool = False) -> None:
    """Up."""
    stack = configured_stack(only_backends)
    print(stack.up(lambda part, s: print(part.name, s)))


@app.command()
def down() -> None:
    """Down."""
    configured_stack().down()


@app.command()
def status() -> None:
    print(Stack.running(stack_settings(given_settings(os.environ)).home).status())
