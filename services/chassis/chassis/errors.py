"""The errors of back ends: RabbitMQ, MongoDB, S3 and the like.

BackEndError ── a back end did not do what it was asked
└── AwayError ── it is away: unreachable, failing, or too slow to answer
ObjectMissingError ── S3 answered that there is no such object
"""


class BackEndError(Exception):
    """A back end did not do what it was asked. `back_end` is its name; `reason` its code, or the driver's error."""

    def __init__(self, back_end: str, reason: str) -> None:
        super().__init__(f"{back_end}: {reason}")
        self.back_end = back_end
        self.reason = reason


class AwayError(BackEndError):
    """A back end is away. The message at hand is not at fault, so waiting for the back end uses up no tries."""

    code = "away"


class ObjectMissingError(Exception):
    """The key has no object, or no longer the one that was asked for (a failed precondition)."""

    code = "object_missing"


def reason_of(error: BaseException) -> str:
    """Return why something failed, for a log line or a message header.

    An error with a `code` gives `<code>: <text>`, at most 200 characters. Any other BackEndError gives its `reason`.
    All other errors give only their class name, because their text may quote confidential data.
    """
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return f"{code}: {error}"[:200]
    return error.reason if isinstance(error, BackEndError) else type(error).__name__
