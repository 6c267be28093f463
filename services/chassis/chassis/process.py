"""A service as a process: settings in, log on stdout, serving until it is told to stop, exit code 0 then."""

import os
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

import uvicorn
from pydantic import ValidationError
from starlette.types import ASGIApp

from chassis import logs
from chassis.settings import ServiceSettings
from chassis.stopping import SHARE_FOR_WORK

SettingsType = TypeVar("SettingsType", bound=ServiceSettings)

KEEP_ALIVE_SECONDS = 75
"""Longer than the edge keeps its connections: it must be the one to close them, or a request meets a reset."""


def run(service: str, settings_type: type[SettingsType], create_app: Callable[[SettingsType], ASGIApp]) -> None:
    """Run until SIGTERM; a wrong or missing setting ends the process with its name, never its value, and code 2."""
    try:
        settings = settings_type()
    except ValidationError as error:
        for problem in error.errors(include_input=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            wrong = " is not set" if problem["type"] == "missing" else f": {problem['msg']}"
            print(f"{service}: setting {name}{wrong} (see .env.example)", file=sys.stderr)  # noqa: T201 - there is no log yet
        raise SystemExit(2) from None
    logs.configure(service, settings.log_level)
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
