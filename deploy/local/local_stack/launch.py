"""Becomes one part of the stack; the process manager runs `python -m local_stack.launch NAME` for each.

It exists for two reasons. Secrets stay out of the process manager's configuration. And whatever a killed part has left
running is ended first, because it may hold the port that the new process needs.
"""

import json
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path

from local_stack import processes

OPEN_FILES = 65536  # enough for thousands of streams; some programs walk the whole range, so not "unlimited"


def main() -> None:
    """Replaces this process by the part that the first argument names."""
    home, name = Path(os.environ[processes.STACK]), sys.argv[1]
    spec = json.loads((home / "parts" / f"{name}.json").read_text(encoding="utf-8"))
    processes.kill(processes.of_part(home, name), signal.SIGKILL)
    _wait_for(spec["after_port"])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    os.chdir(home)
    command, env = spec["command"], spec["env"] | processes.mark(home, name)
    try:
        os.execvpe(command[0], command, env)  # noqa: S606  # becoming that program is the point
    except OSError as error:
        sys.exit(f"{command[0]} does not start: {error.strerror}")


def _wait_for(port: int | None) -> None:
    """Returns when the port answers; gives up after 30 s and lets the part say what it misses."""
    limit = time.monotonic() + 30
    while port is not None and time.monotonic() < limit:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


if __name__ == "__main__":
    main()
