"""A service as a process: reads its settings, logs to stdout, serves until told to stop, then exits with code 0."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp

from chassis import logs
from chassis.plain_http import PlainHttp
from chassis.settings import ServiceSettings
from chassis.stopping import SHARE_FOR_WORK

SettingsType = TypeVar("SettingsType", bound=ServiceSettings)

KEEP_ALIVE_SECONDS = 75
"""Longer than the edge keeps idle connections. The edge must close them first, or a request could meet a reset."""
OBJECTS_BETWEEN_COLLECTIONS = 10_000
"""How many objects must have been added before Python looks for cycles: 700, its default, are a few requests."""


def run(service: str, settings_type: type[SettingsType], create_app: Callable[[SettingsType], ASGIApp]) -> None:
    """Run until SIGTERM. For a wrong or missing setting, print its name, never its value, and exit with code 2."""
    try:
        settings = settings_type()
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            wrong = f"{name} is not set" if problem["type"] == "missing" else problem["msg"]
            print(f"{service}: setting {name}: {wrong} (see .env.example)", file=sys.stderr)  # noqa: T201 - there is no log yet
        raise SystemExit(2) from None
    logs.configure(service, settings.log_level)
    # After it has stopped, uvicorn raises the signal again for the previous handler. The default one would kill the
    # process by the signal, but a clean stop must exit with 0.
    signal.signal(signal.SIGTERM, lambda *_: None)
    app = create_app(settings)
    _spare_what_stays()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=PlainHttp,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # chassis.clients reads them, of proxies that the settings name
        headers=[("X-Content-Type-Options", "nosniff")],  # in every answer, those of uvicorn's own too
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace * SHARE_FOR_WORK)),
    )
    # Everything that must be stored is stored. A thread that still waits for something must not delay the exit.
    sys.stdout.flush()
    os._exit(0)


def _spare_what_stays() -> None:
    """Keep the garbage collector from what has been made so far, which stays: looking through it stops all work.

    That is over 100,000 objects of modules and routes, and 60 to 90 ms each time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
