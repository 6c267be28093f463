"""What can go wrong in the notifier."""


class NotifierError(Exception):
    """Anything the notifier raises itself."""

    code = "notifier_error"


class AwayError(NotifierError):
    """Something that the notifier needs is away: no fault of the message's, which waits for as long as it takes."""

    code = "away"


class ContendedError(NotifierError):
    """A job kept changing while an event was to be applied to it; the message is tried again."""

    code = "contended"
