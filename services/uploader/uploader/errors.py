"""What can go wrong with a recording, besides its back ends (chassis.errors)."""

from contracts.failures import FailureCode


class RejectedError(Exception):
    """The recording cannot be used; the job fails with `reason`."""

    code = "rejected"

    def __init__(self, reason: FailureCode) -> None:
        super().__init__(reason.value)
        self.reason = reason


class DeletionError(Exception):
    """The store answered, but did not delete what it was to; the message is tried again."""

    code = "deletion_failed"
