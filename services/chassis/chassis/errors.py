"""What can go wrong with a back end, whichever it is.

BackEndError ── a back end did not do what was asked of it
└── AwayError ── it is away, or does not answer in time
ObjectMissingError ── S3 answered: there is no such object
"""


class BackEndError(Exception):
    """A back end did not do what was asked of it; `back_end` names it, `reason` what its driver raised."""

    def __init__(self, back_end: str, reason: str) -> None:
        super().__init__(f"{back_end}: {reason}")
        self.back_end = back_end
        self.reason = reason


class AwayError(BackEndError):
    """A back end is away: no fault of the message or request in hand, which waits for as long as it takes."""

    code = "away"


class ObjectMissingError(Exception):
    """There is no object under the key, or no longer the one that was asked for."""

    code = "object_missing"


def reason_of(error: BaseException) -> str:
    """Return why something failed, for a log line or a header: `<code>: <text>` of an error that has a code.

    Of any other error only the name: its text may quote what nobody else may see.
    """
    code = getattr(error, "code", None)
    if isinstance(code, str):
        return f"{code}: {error}"[:200]
    return error.reason if isinstance(error, BackEndError) else type(error).__name__
