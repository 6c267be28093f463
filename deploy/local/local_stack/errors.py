"""What can go wrong with a local stack, each with a sentence for the person at the terminal.

StackError
├── SettingError      a setting is wrong or missing
├── PortsTaken        another program listens where the stack wants to
├── PartFailed        a part does not become ready
└── NotRunning        the stack is not up
"""

from __future__ import annotations


class StackError(Exception):
    """The sentence says what happened and what to do; `details` are lines to show below it."""

    def __init__(self, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.details = details


class SettingError(StackError):
    """A setting is wrong or missing; the message names it."""


class PortsTaken(StackError):
    """Another program listens where the stack wants to."""


class PartFailed(StackError):
    """A part did not become ready; the message names it, the details are the last lines of its log."""


class NotRunning(StackError):
    """The stack is not up."""
