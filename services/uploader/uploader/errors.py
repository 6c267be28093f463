"""The errors of the uploader, besides those of its back ends (chassis.errors) and of decoding (decoding.errors)."""


class InHandError(Exception):
    """The recording that is to be removed is being stored right now; the message is tried again."""

    code = "recording_in_hand"
