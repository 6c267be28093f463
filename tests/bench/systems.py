"""The systems under measure, side by side: Sori's stack, the baseline, and the analysis server both call."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_stack.ports import SPAN, taken
from local_stack.stack import Stack
from tests.bench import programs

ANALYSIS_SECONDS = 0.05
LOAD_CLIENT = "load client"
BASELINE = "baseline"
FAKE = "fake analysis server"
_NAMES = {"edge": "nginx", "epmd": "rabbitmq"}


@dataclass(frozen=True)
class Systems:
    """Both systems running; they share the S3 server and the analysis server."""

    stack: Stack
    baseline_url: str
    own_servers: dict[str, programs.Server]

    def parts(self, **others: int) -> dict[str, list[int]]:
        """The pids of every part as of now, by the name it has in the report, with `others` added."""
        found: dict[str, list[int]] = {}
        for part in self.stack.parts:
            service = part.removesuffix("-1")
            found.setdefault(_NAMES.get(service, service), []).extend(self.stack.pids(part))
        found |= {name: [server.pid] for name, server in self.own_servers.items()}
        return found | {name.replace("_", " "): [pid] for name, pid in others.items()}

    def must_be_alive(self) -> None:
        """Raise ProgramError when the baseline or the analysis server has ended meanwhile."""
        for server in self.own_servers.values():
            server.must_be_alive()


@contextmanager
def systems(home: Path, port_base: int) -> Iterator[Systems]:
    """Start everything, one replica of each service, on loopback ports from `port_base`; stop it at the end.

    Raises local_stack's errors and ProgramError.
    """
    fake_port, baseline_port = port_base + SPAN, port_base + SPAN + 1
    target = f"http://127.0.0.1:{fake_port}/analyze-voice"
    stack = Stack(home, port_base=port_base, given={"TARGET_SERVER_URL": target})
    _refuse_taken({fake_port: FAKE, baseline_port: BASELINE}, stack)
    settings = {name: value for name, value in stack.settings.items() if name.startswith(("AWS_", "S3_", "TARGET_"))}
    delay = {"DELAY_SECONDS": str(ANALYSIS_SECONDS)}
    try:
        stack.up()
        with (
            programs.Server("tests.support.fake_analysis_server", fake_port, delay, home / "logs/fake.log") as fake,
            programs.baseline(baseline_port, settings, home / "logs/baseline.log") as baseline,
        ):
            yield Systems(stack, f"http://127.0.0.1:{baseline_port}", {FAKE: fake, BASELINE: baseline})
    finally:
        stack.down()


def _refuse_taken(own: dict[int, str], stack: Stack) -> None:
    """Raise ProgramError that names every taken port, before anything is started."""
    wanted = own | {port: owner for part in stack.parts.values() for port, owner in part.ports.items()}
    if in_use := taken(wanted):
        names = ", ".join(f"{port} (for {owner})" for port, owner in sorted(in_use.items()))
        raise programs.ProgramError(
            f"Taken by another program: {names}. Stop that program, or measure elsewhere: "
            f"python -m tests.bench --port-base {min(wanted) + 1000}"
        )
