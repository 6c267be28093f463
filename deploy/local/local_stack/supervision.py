"""The process manager: supervisord with a configuration of ours, spoken to over a socket in the stack's home.

Everything that it reads is relative to `home/run`, its working directory, so a home may have any name and any depth:
a socket's path may have 107 bytes at most, and `/proc/self/cwd/…` is short wherever that is.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from xmlrpc.client import Error as RpcError
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

from local_stack import processes
from local_stack.credentials import write_private
from local_stack.errors import StackError
from local_stack.part import GROUPS, Part, group_of

SOCKET = "supervisor.sock"
STOP_SECONDS = 25
"""How long a part may take to stop after SIGTERM; the services take up to 20."""

HEAD = """\
[supervisord]
logfile=../logs/supervisord.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile=supervisord.pid
umask=077
minfds=1024
{user}
[unix_http_server]
file=/proc/self/cwd/{socket}
chmod=0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

PROGRAM = """
[program:{name}]
command="%(ENV_SORI_PYTHON)s" -m local_stack.launch {name}
autorestart=true
startsecs=2
startretries=8
stopsignal=TERM
stopwaitsecs={stop_seconds}
killasgroup=true
redirect_stderr=true
stdout_logfile=../logs/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
"""


def configuration(parts: Iterable[Part]) -> str:
    """supervisord's configuration: a program for each part, and its groups in the order of starting."""
    listed = list(parts)
    user = "user=root\n" if os.geteuid() == 0 else ""
    text = HEAD.format(socket=SOCKET, user=user)
    for part in listed:
        text += PROGRAM.format(name=part.name, stop_seconds=STOP_SECONDS)
    for priority, group in enumerate(GROUPS):
        if names := [part.name for part in listed if group_of(part.name) == group]:
            text += f"\n[group:{group}]\nprograms={','.join(names)}\npriority={priority}\n"
    return text


class State(NamedTuple):
    """What the process manager knows of a part."""

    name: str
    """In supervisord's words: STARTING, RUNNING, BACKOFF (it ended at once, and will be started again), FATAL…"""
    started: int
    """When it was last started, in Unix seconds."""


class Supervisor:
    """The process manager of the stack in `home`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._run = home / "run"

    def start(self, parts: Iterable[Part], system: dict[str, str]) -> None:
        """Starts it in the background, and with it all parts. Raises StackError with its output."""
        self._run.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._home / "logs").mkdir(exist_ok=True, mode=0o700)
        write_private(self._run / "supervisord.conf", configuration(parts))
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf"],
            cwd=self._run,
            env=system | processes.mark(self._home, processes.SUPERVISOR) | {"SORI_PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError("The process manager does not start.", tuple((done.stdout + done.stderr).splitlines()))

    def states(self) -> dict[str, State]:
        """Each part's state; empty when the process manager does not run."""
        try:
            with self._rpc() as rpc:
                infos: Any = rpc.supervisor.getAllProcessInfo()
        except (OSError, HTTPException, RpcError):
            return {}
        return {info["name"]: State(info["statename"], info["start"]) for info in infos}

    def stop(self) -> None:
        """Ends it and all parts, group by group; returns when it is gone, or cannot be asked."""
        try:
            with self._rpc() as rpc:
                rpc.supervisor.shutdown()
        except (OSError, HTTPException, RpcError):
            return
        limit = time.monotonic() + (len(GROUPS) + 1) * STOP_SECONDS
        while processes.of_part(self._home, processes.SUPERVISOR) and time.monotonic() < limit:
            time.sleep(0.05)

    @contextmanager
    def _rpc(self) -> Iterator[ServerProxy]:
        folder = os.open(self._run, os.O_PATH | os.O_DIRECTORY)
        transport = SupervisorTransport(None, None, f"unix:///proc/self/fd/{folder}/{SOCKET}")
        try:
            yield ServerProxy("http://localhost", transport=transport)
        finally:
            transport.close()
            os.close(folder)
