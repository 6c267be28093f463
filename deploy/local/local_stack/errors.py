"""What can go wrong with a local stack, each with a sentence for the person at the terminal.

StackError
├── SettingError      a setting is wrong or missing
├── PortsTakenError   another program listens where the stack wants to
├── PartFailedError   a part does not become ready
├── NotRunningError   the stack is not up
├── SendFailedError   a recording could not be sent, or its progress not be followed
└── LoginFailedError  nobody can be logged in
"""


class StackError(Exception):
    """The sentence says what happened and what to do; `details` are lines to show below it."""

    def __init__(self, message: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.details = details


class SettingError(StackError):
    """A setting is wrong or missing; the message names it."""


class PortsTakenError(StackError):
    """Another program listens where the stack wants to."""


class PartFailedError(StackError):
    """A part did not become ready; the message names it, the details are the last lines of its log."""


class NotRunningError(StackError):
    """The stack is not up."""


class SendFailedError(StackError):
    """A recording could not be sent, or its progress not be followed."""


class LoginFailedError(StackError):
    """Nobody can be logged in."""
