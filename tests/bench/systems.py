"""The systems under measure, side by side: Sori's stack, its peers, and the analysis server that they call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.ports import SERVICE_OFFSETS, SPAN, taken
from local_stack.processes import SUPERVISOR
from local_stack.stack import Stack
from tests.bench import programs
from tests.bench.peers import servers

ANALYSIS_SECONDS = 0.05
LOAD_CLIENT = "load client"
BASELINE = "baseline"
RELAY = "relay"
NCHAN = "nchan"
FAKE = "fake analysis server"
SERVICES = tuple(SERVICE_OFFSETS)
"""The names of the four services, as a report has them."""
_NAMES = {"edge": "nginx", "epmd": "rabbitmq"}


@dataclass(frozen=True)
class Systems:
    """Everything that runs; stack and peers share RabbitMQ, MongoDB, the S3 server and the analysis server."""

    stack: Stack
    own_servers: dict[str, programs.Server]
    nchan_port: int
    """Where nchan may listen, which is started only for the streams."""

    @property
    def urls(self) -> dict[str, str]:
        """Where each system takes uploads, by its name in a report."""
        return {"ours": self.stack.url} | {name: self.own_servers[name].url for name in (BASELINE, RELAY)}

    def parts(self, **others: int) -> dict[str, list[int]]:
        """The pids of every part as of now, by the name it has in the report, with `others` added."""
        found: dict[str, list[int]] = {SUPERVISOR: self.stack.pids(SUPERVISOR)}
        for part in self.stack.parts:
            service = part.rstrip("0123456789").removesuffix("-") if part.startswith(SERVICES) else part
            found.setdefault(_NAMES.get(service, service), []).extend(self.stack.pids(part))
        found |= {name: [server.pid] for name, server in self.own_servers.items()}
        return found | {name.replace("_", " "): [pid] for name, pid in others.items()}

    def must_be_alive(self) -> None:
        """Raise ProgramError when a peer or the analysis server has ended meanwhile."""
        for server in self.own_servers.values():
            server.must_be_alive()


@contextmanager
def systems(home: Path, port_base: int) -> Iterator[Systems]:
    """Start everything, one replica of each service, on loopback ports from `port_base`; stop it at the end.

    Raises local_stack's errors and ProgramError.
    """
    ports = {name: port_base + SPAN + number for number, name in enumerate((FAKE, BASELINE, RELAY, NCHAN))}
    stack = Stack(home, port_base=port_base, given={"TARGET_SERVER_URL": target_url(ports[FAKE])})
    refuse_taken({port: name for name, port in ports.items()}, stack)
    settings = stack.settings
    try:
        stack.up()
        with (
            fake(ports[FAKE], home) as analysis_server,
            servers.baseline(ports[BASELINE], settings, home / "logs/baseline.log") as baseline,
            servers.relay(ports[RELAY], settings, home / "logs/relay.log") as relay,
        ):
            yield Systems(stack, {FAKE: analysis_server, BASELINE: baseline, RELAY: relay}, ports[NCHAN])
    finally:
        stack.down()


def fake(port: int, home: Path) -> programs.Server:
    """The analysis server: it calls back after ANALYSIS_SECONDS."""
    delay = {"DELAY_SECONDS": str(ANALYSIS_SECONDS)}
    return programs.Server(programs.python("tests.support.fake_analysis_server"), port, delay, home / "logs/fake.log")


def target_url(port: int) -> str:
    """Where that analysis server is asked."""
    return f"http://127.0.0.1:{port}/analyze-voice"


def refuse_taken(own: dict[int, str], stack: Stack) -> None:
    """Raise ProgramError that names every taken port, before anything is started."""
    wanted = own | {port: owner for part in stack.parts.values() for port, owner in part.ports.items()}
    if in_use := taken(wanted):
        names = ", ".join(f"{port} (for {owner})" for port, owner in sorted(in_use.items()))
        raise programs.ProgramError(
            f"Taken by another program: {names}. Stop that program, or measure elsewhere: "
            f"python -m tests.bench --port-base {min(wanted) + 1000}"
        )
