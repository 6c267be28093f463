"""Programs of the measurement, each a process of its own: servers that listen, workers that carry out a plan."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from tests.bench.load import Outcome, Plan

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_SECONDS = 30.0
STOP_LIMIT_SECONDS = 10.0


class ProgramError(Exception):
    """A program did not start or ended before it should; the text holds the end of its log."""


class Server:
    """A program that listens on 127.0.0.1:port from the start of its block to the end.

    Raises ProgramError when it does not come to listen.
    """

    def __init__(self, command: Sequence[str], port: int, settings: Mapping[str, str], log: Path) -> None:
        self.name = " ".join(command)
        self._command = command
        self._port = port
        self._settings = {**settings, "HOST": "127.0.0.1", "PORT": str(port)}
        self._log = log

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process to measure."""
        return self._process.pid

    def __enter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as output:
            self._process = _start(self._command, self._settings, output)
        try:
            self._wait_until_listening()
        except BaseException:  # Ctrl-C too
            _end(self._process)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)

    def must_be_alive(self) -> None:
        """Raise ProgramError when the process has ended: what was measured since then is worth nothing."""
        if (code := self._process.poll()) is not None:
            raise self._failure(f"ended with code {code} while it was needed")

    def _wait_until_listening(self) -> None:
        limit = time.monotonic() + START_LIMIT_SECONDS
        while time.monotonic() < limit and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.05)
        raise self._failure(f"does not listen on port {self._port}")

    def _failure(self, what: str) -> ProgramError:
        end_of_log = self._log.read_text(errors="replace")[-2000:]
        return ProgramError(f"{self.name} {what}. The end of {self._log}:\n{end_of_log}")


class Worker:
    """A client that waits for its start signal, and stays to be measured: `python -m MODULE PLAN`, the plan as JSON."""

    def __init__(self, module: str, plan: "DataclassInstance", settings: Mapping[str, str]) -> None:
        self._process = _start([*python(module), json.dumps(asdict(plan))], settings, None)
        self._expect("ready")

    @property
    def pid(self) -> int:
        """The process to measure."""
        return self._process.pid

    def carry_out(self) -> dict[str, Any]:
        """Give the start signal and wait for the report."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._line())
        return report

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # after its report it ends by itself
        _end(self._process, signal_it=error is not None)

    def _expect(self, word: str) -> None:
        if self._line().strip() != word:
            raise ProgramError(f"{self._process.args!r} did not say {word!r}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line:
            raise ProgramError(f"{self._process.args!r} ended early with code {self._process.wait()}")
        return line


def load_client(plan: Plan, url: str) -> Worker:
    """A load client that has made its recordings and is ready to send them to `url`."""
    return Worker("tests.bench.load", replace(plan, url=url), {})


def outcome_of(report: Mapping[str, Any]) -> Outcome:
    """A load client's report in its own type."""
    return Outcome(**report)


def python(module: str) -> list[str]:
    """The command that runs a module."""
    return [sys.executable, "-m", module]


def _start(command: Sequence[str], settings: Mapping[str, str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL if output else subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,  # Ctrl-C is for the measurement, which ends its programs in order
    )


def _end(process: subprocess.Popen[bytes], *, signal_it: bool = True) -> None:
    if signal_it:
        process.terminate()
    try:
        process.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
