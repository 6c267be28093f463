"""The errors of the notifier, besides those of its back ends (chassis.errors)."""


class ContendedError(Exception):
    """A job kept changing while an event was to be applied to it; the message is tried again."""

    code = "contended"


class TooSoonError(Exception):
    """An analysis' progress would be passed on too soon after the one before; the message waits `retry_after` s."""

    code = "too_soon"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"{retry_after:.1f} s too soon")
        self.retry_after = retry_after
