"""The errors of the uploader, besides those of its back ends (chassis.errors)."""

from contracts.failures import FailureCode


class RejectedError(Exception):
    """The recording cannot be used; the job fails with `reason`."""

    code = "rejected"

    def __init__(self, reason: FailureCode) -> None:
        super().__init__(reason.value)
        self.reason = reason


class InHandError(Exception):
    """The recording that is to be removed is being stored right now; the message is tried again."""

    code = "recording_in_hand"
