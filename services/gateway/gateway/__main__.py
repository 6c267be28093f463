"""Starts the gateway: `python -m gateway`."""

import os
import signal
import sys

import uvicorn
from pydantic import ValidationError

from gateway import SERVICE
from gateway.app import create_app
from gateway.logs import configure
from gateway.settings import Settings
from gateway.stopping import SHARE_FOR_WORK

KEEP_ALIVE_SECONDS = 75
"""Longer than the edge keeps its connections: it must be the one to close them, or a request meets a reset."""


def main() -> None:
    """Run until SIGTERM; a wrong or missing setting ends the process with its name."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"{SERVICE}: setting {name}: {problem['msg']} (see .env.example)", file=sys.stderr)
        raise SystemExit(2) from None
    configure(SERVICE, settings.log_level)
    # Once stopped, uvicorn raises the signal again for whoever handled it before: a clean stop shall exit with 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace * SHARE_FOR_WORK)),
    )
    # All that was to be safe is safe; a thread that is still at work, on a long recording, must not hold the process.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
