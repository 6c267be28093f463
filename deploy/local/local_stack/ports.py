"""Which part listens where: every port of a stack follows from its base."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from local_stack.errors import PortsTakenError

LOOPBACK = "127.0.0.1"
SPAN = 50
"""How many ports a stack reserves, starting at its base: stacks with bases this far apart never collide."""

SERVICE_OFFSETS = {"gateway": 10, "uploader": 20, "analyzer-bridge": 30, "notifier": 40}


@dataclass(frozen=True)
class Ports:
    """Where each part of one stack listens, on the loopback address."""

    edge: int
    analysis_server: int
    rabbitmq: int
    rabbitmq_distribution: int
    epmd: int
    mongod: int
    s3: int
    oidc_provider: int

    @classmethod
    def from_base(cls, base: int) -> Self:
        """Return the ports of the stack whose edge listens on `base`."""
        return cls(*range(base, base + len(fields(cls))))

    def service(self, name: str, replica: int) -> int:
        """The port of one replica, counted from 1 (to 10)."""
        return self.edge + SERVICE_OFFSETS[name] + replica - 1


def taken(ports: Mapping[int, str]) -> dict[int, str]:
    """Those of `ports` (port: who wants it) that another program listens on."""
    return {port: owner for port, owner in ports.items() if not _free(port)}


def refuse_taken(ports: Mapping[int, str]) -> None:
    """Raises PortsTakenError, naming each taken port, the part it is for and the way out."""
    if not (in_use := taken(ports)):
        return
    names = ", ".join(f"{port} (for {owner})" for port, owner in sorted(in_use.items()))
    raise PortsTakenError(
        f"Taken by another program: port{'s' if len(in_use) > 1 else ''} {names}. "
        f"Stop that program, or move the whole stack: SORI_PORT_BASE={min(ports) + 1000} make up"
    )


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # The parts set this option too: a port whose last connections are still closing counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
