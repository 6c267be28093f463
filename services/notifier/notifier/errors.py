"""The errors of the notifier, besides those of its back ends (chassis.errors)."""


class ContendedError(Exception):
    """A job kept changing while an event was to be applied to it; the message is tried again."""

    code = "contended"
