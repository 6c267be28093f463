"""What can go wrong in the uploader, and what it means for the message in hand."""

from contracts.failures import FailureCode


class UploaderError(Exception):
    """Anything the uploader raises itself."""

    code = "uploader_error"


class AwayError(UploaderError):
    """Something that the uploader needs is away: no fault of the message's, which waits for as long as it takes."""

    code = "away"


class RejectedError(UploaderError):
    """The recording cannot be used; the job fails with `reason`."""

    code = "rejected"

    def __init__(self, reason: FailureCode) -> None:
        super().__init__(reason.value)
        self.reason = reason


class DeletionError(UploaderError):
    """The store answered, but did not delete what it was to; the message is tried again."""

    code = "deletion_failed"


class ObjectMissingError(UploaderError):
    """There is no object under the key."""

    code = "object_missing"
