"""The program: `python -m analysis_server` serves until SIGTERM or Ctrl-C, finishes what is in hand, and exits 0."""

import signal
import sys

import uvicorn

from analysis_server.app import create_app
from analysis_server.logs import set_up
from analysis_server.settings import SettingsError, load


def main() -> int:
    """Return the exit code: 0 after a stop that was asked for, 2 for wrong settings, uvicorn's own otherwise."""
    try:
        settings = load()
    except SettingsError as error:
        print(f"The analysis server cannot start:\n{error}", file=sys.stderr)
        return 2
    set_up(settings.log_level)
    # After its own clean stop uvicorn raises the signal again, for whoever was there before it: this, instead of death.
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, lambda *_: None)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
    )
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
