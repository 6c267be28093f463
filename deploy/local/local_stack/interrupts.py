"""Turns Ctrl-C, SIGTERM and a closed terminal into one exception, once: the clean-up after it is not disturbed."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Somebody wants this command to end; no `except Exception` is to swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_status = 128 + signum


def catch() -> None:
    """From now on the first of the signals raises Interrupted in the main thread, and later ones are ignored."""
    for signum in SIGNALS:
        signal.signal(signum, _interrupt)


def ignore() -> None:
    """From now on the signals do nothing: what is under way is the clean-up itself."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def wait() -> None:
    """Stays until one of the signals comes; returns then."""
    try:
        threading.Event().wait()
    except Interrupted:
        return


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    ignore()
    raise Interrupted(signum)
