"""Turns the first Ctrl-C, SIGTERM or closed terminal into an exception; later ones do not disturb the clean-up."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this command to end. It is a BaseException so that no `except Exception` swallows it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_status = 128 + signum


def catch() -> None:
    """From now on the first of the signals raises Interrupted in the main thread, and later ones are ignored."""
    for signum in SIGNALS:
        signal.signal(signum, _interrupt)


def ignore() -> None:
    """From now on the signals do nothing, because the clean-up is already under way."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def wait() -> None:
    """Returns when one of the signals comes."""
    try:
        threading.Event().wait()
    except Interrupted:
        return


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    ignore()
    raise Interrupted(signum)
