"""The error of a file that cannot be used."""

from contracts.failures import FailureCode


class RejectedError(Exception):
    """The file cannot be used as a recording, for `reason`; it would be rejected again. Survives pickling."""

    code = "rejected"

    def __init__(self, reason: FailureCode) -> None:
        super().__init__(reason)
        self.reason = reason
