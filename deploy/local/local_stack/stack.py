"""One whole stack, brought up and down; the command line and the tests use this."""

import fcntl
import json
import os
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from local_stack import login, oidc_provider, processes
from local_stack.credentials import write_private
from local_stack.edge import edge_url
from local_stack.errors import LoginFailedError, NotRunningError, StackError
from local_stack.part import GROUPS, NotReadyError, Part, group_of, system_env
from local_stack.plan import Plan
from local_stack.ports import Ports, refuse_taken
from local_stack.readiness import Readiness, Report, Silence
from local_stack.settings import known_names
from local_stack.supervision import STOP_SECONDS, Supervisor


class Stack:
    """The stack whose data is in `home`, a folder of its own. See Plan for what the arguments mean.

    Raises SettingError.
    """

    def __init__(
        self,
        home: Path,
        *,
        port_base: int = 8000,
        replicas: int = 1,
        given: Mapping[str, str] | None = None,
        only_backends: bool = False,
        timeout: float = 180,
    ) -> None:
        self.home = Path(os.path.realpath(home))
        self.plan = Plan(self.home, Ports.from_base(port_base), replicas, dict(given or {}), only_backends)
        self.timeout = timeout
        self._supervisor = Supervisor(self.home)
        self._record = self.home / "run" / "stack.json"

    @classmethod
    def running(cls, home: Path) -> Self:
        """The stack that is up in `home`, whatever settings it was started with. Raises NotRunningError."""
        home = Path(os.path.realpath(home))
        record = home / "run" / "stack.json"
        if not record.exists() or not Supervisor(home).states():
            raise NotRunningError("The stack is not up. Start it with: make up")
        return cls(home, **json.loads(record.read_text(encoding="utf-8")))

    @property
    def url(self) -> str:
        """Where the edge is, without a slash at the end."""
        return edge_url(self.plan.ports)

    @property
    def settings(self) -> dict[str, str]:
        """The settings that the services run with, secrets included: RABBITMQ_URL, MONGODB_URL, S3_ENDPOINT_URL, …"""
        return self.plan.settings

    def id_token(self, person: str) -> str:
        """An id token of the stack's own OpenID Connect provider. Raises LoginFailedError, also when it has none."""
        if not login.has_own_provider(self.plan.given):
            raise LoginFailedError(
                "The stack has no login of its own: AUTH=required make up starts one, unless OIDC_ISSUERS is given."
            )
        audience = self.settings["OIDC_AUDIENCES"].split(",")[0].strip()
        return oidc_provider.id_token(self.settings["OIDC_ISSUERS"], audience, person)

    @property
    def parts(self) -> dict[str, Part]:
        """Every part, by name: epmd, rabbitmq, mongod, s3, edge, analysis-server, gateway-1, …"""
        return self.plan.parts

    def up(self, report: Report | None = None) -> bool:
        """Starts every part and returns when all are ready; False when they were up before.

        Raises PortsTakenError before anything is started, and PartFailedError after everything was stopped again.
        """
        report = report or Silence()
        with self._alone():
            if self.is_up():
                self._refuse_other_settings()
                self._readiness(self.parts.values(), self.timeout).wait(report)
                return False
            self._end_processes()
            refuse_taken({port: owner for part in self.parts.values() for port, owner in part.ports.items()})
            try:
                self._start()
                self._readiness(self.parts.values(), self.timeout).wait(report)
            except BaseException:  # Ctrl-C too: a stack that is half up is of no use
                report.stopping()
                self._stop()
                raise
            return True

    def down(self) -> None:
        """Ends every process of the stack, whatever state it is in; its data stays."""
        with self._alone():
            self._stop()

    def is_up(self) -> bool:
        """Whether the process manager runs, and with it the parts."""
        return bool(self._supervisor.states())

    def status(self) -> dict[str, str]:
        """For each part `ready`, or what it lacks."""
        return {name: _status(part) for name, part in self.parts.items()}

    def pids(self, name: str) -> list[int]:
        """The processes of a part, its children included."""
        return processes.of_part(self.home, name)

    def kill(self, name: str) -> None:
        """Ends a part as a crash would (SIGKILL to all its processes); the process manager starts it again."""
        processes.kill(self.pids(name), signal.SIGKILL)

    def wait_until_ready(self, *names: str, timeout: float | None = None) -> None:
        """Returns when the named parts, or all, are ready. Raises PartFailedError."""
        parts = [self.parts[name] for name in names or self.parts]
        self._readiness(parts, timeout or self.timeout).wait(Silence())

    def log(self, name: str) -> Path:
        """The log of a part, or of `supervisord`."""
        return self.home / "logs" / f"{name}.log"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One command at a time changes the stack; another waits its turn."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _readiness(self, parts: Collection[Part], timeout: float) -> Readiness:
        return Readiness(parts, self._supervisor, self.home / "logs", timeout)

    def _start(self) -> None:
        for part in self.parts.values():
            self._prepare(part)
        write_private(self._record, json.dumps(self._arguments()))
        self._supervisor.start(self.parts.values(), system_env(os.environ))

    def _prepare(self, part: Part) -> None:
        for folder in part.folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, text in part.files.items():
            write_private(path, text)
        spec = {"command": part.command, "env": part.env, "after_port": part.after_port}
        write_private(self.home / "parts" / f"{part.name}.json", json.dumps(spec))

    def _arguments(self) -> dict[str, object]:
        """What this stack was made with; of the given settings, those that its programs read."""
        names = [name for name in known_names() if name in self.plan.given and not name.startswith("SORI_")]
        given = {name: self.plan.given[name] for name in names}
        return {
            "port_base": self.plan.ports.edge,
            "replicas": self.plan.replicas,
            "given": given,
            "only_backends": self.plan.only_backends,
        }

    def _refuse_other_settings(self) -> None:
        if json.loads(self._record.read_text(encoding="utf-8")) != self._arguments():
            raise StackError("The stack is already up, with other settings. To change them: make down, then make up")

    def _stop(self) -> None:
        self._supervisor.stop()
        self._end_processes()
        self._record.unlink(missing_ok=True)

    def _end_processes(self) -> None:
        """Ends the processes that are left, found by their mark. After a killed process manager that is every part."""
        processes.end(self.home, {processes.SUPERVISOR}, STOP_SECONDS)
        for group in reversed(GROUPS):
            names = {part for part in processes.of_stack(self.home).values() if group_of(part) == group}
            processes.end(self.home, names, STOP_SECONDS)


def _status(part: Part) -> str:
    try:
        part.check_ready()
    except NotReadyError as reason:
        return str(reason)
    return "ready"
