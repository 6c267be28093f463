"""The errors of the uploader, besides those of its back ends (chassis.errors) and of decoding (decoding.errors)."""

from chassis.errors import BackEndError


class InHandError(Exception):
    """The recording that is to be removed is being stored right now; the message is tried again."""

    code = "recording_in_hand"


class DeletionError(BackEndError):
    """S3 answered, but did not delete every object."""

    def __init__(self, reason: str) -> None:
        super().__init__("S3", reason)
