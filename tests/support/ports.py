"""A port for a program that a test starts."""

import random
import socket

from local_stack.ports import LOOPBACK

PORTS = range(30_000, 32_768)
"""Below those that the system gives to outgoing connections, one of which may take a port before the program listens on
it; and above those of the stacks.
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port
    raise AssertionError("every port is taken")
