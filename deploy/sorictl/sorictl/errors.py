"""What can go wrong with a command, each with a sentence for the person at the terminal and an exit status.

SorictlError (1)
├── SettingError (2)        RABBITMQ_URL, MONGODB_URL, S3_BUCKET_NAME or SESSION_KEYS is missing or wrong
├── NobodyToAskError (2)    a confirmation is needed, and there is no terminal
├── NothingMatchesError     there is nothing of what was asked for
├── DeclinedError           the answer to a confirmation was no
├── IncompleteError         only part of the work was done
├── BrokerError             RabbitMQ is away, refuses, or is not Sori's
├── DatabaseError           MongoDB is away or refuses
├── FileError               a file cannot be read or written
├── RefusedError            a file has rows that cannot be imported
├── NotRedrivenError        a job cannot be told again
└── InterruptedByUserError (130)
"""


class SorictlError(Exception):
    """The sentence says what happened and what to do."""

    exit_status = 1


class SettingError(SorictlError):
    """A setting is wrong or missing; the message names it, never its value."""

    exit_status = 2


class NobodyToAskError(SorictlError):
    """A confirmation is needed, and there is no terminal to ask at."""

    exit_status = 2


class NothingMatchesError(SorictlError):
    """There is nothing of what was asked for."""


class DeclinedError(SorictlError):
    """The answer to a confirmation was no."""


class IncompleteError(SorictlError):
    """Only part of the work was done; nothing is lost."""


class BrokerError(SorictlError):
    """RabbitMQ cannot be reached, does not let the command in, or did not take a message."""


class DatabaseError(SorictlError):
    """MongoDB cannot be reached, does not let the command in, or is not what transactions need."""


class FileError(SorictlError):
    """A file cannot be read or written."""


class RefusedError(SorictlError):
    """A file has rows that cannot be imported; none of its rows was."""


class NotRedrivenError(SorictlError):
    """A job cannot be told again; others that were named with it were."""


class InterruptedByUserError(SorictlError):
    """Ctrl-C."""

    exit_status = 130
