"""Programs of the measurement, each a process of its own: servers that listen, workers that carry out a plan."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tests.bench.direct_parts import DirectPlan
from tests.bench.load import Outcome, Plan

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_SECONDS = 30.0
STOP_LIMIT_SECONDS = 10.0


class ProgramError(Exception):
    """A program did not start or ended before it should; the text holds the end of its log."""


@contextmanager
def server(module: str, port: int, settings: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run `python -m module` on 127.0.0.1:port until the block ends; gives its pid once it listens."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = _start(module, [], {**settings, "HOST": "127.0.0.1", "PORT": str(port)}, output)
        try:
            _wait_until_listening(process, module, port, log)
            yield process.pid
        finally:
            _end(process)


@contextmanager
def baseline(port: int, settings: Mapping[str, str], log: Path) -> Iterator[int]:
    """The baseline on this port; `settings` name its S3 and its analysis server. Gives its pid."""
    webhook_url = f"http://127.0.0.1:{port}/webhook/analysis-complete"
    with server("tests.bench.baseline", port, {**settings, "WEBHOOK_URL": webhook_url}, log) as pid:
        yield pid


class Worker:
    """A load client or direct writer that waits for its start signal, and stays to be measured."""

    def __init__(self, module: str, plan: Plan | DirectPlan, settings: Mapping[str, str]) -> None:
        self._process = _start(module, [json.dumps(asdict(plan))], settings, None)
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

    def end(self) -> None:
        """Let the process go; it ends by itself when its input closes."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        _end(self._process, signal_it=False)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _expect(self, word: str) -> None:
        if self._line().strip() != word:
            raise ProgramError(f"{self._process.args!r} did not say {word!r}")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line:
            raise ProgramError(f"{self._process.args!r} ended early with code {self._process.wait()}")
        return line


def load_client(plan: Plan) -> Worker:
    """A load client that has made its recordings and is ready to send them."""
    return Worker("tests.bench.load", plan, {})


def outcome_of(report: Mapping[str, Any]) -> Outcome:
    """A load client's report in its own type."""
    return Outcome(**report)


def direct_writer(plan: DirectPlan, settings: Mapping[str, str]) -> Worker:
    """A writer that puts the plan's bytes straight into S3."""
    return Worker("tests.bench.direct_parts", plan, settings)


def _start(
    module: str, arguments: list[str], settings: Mapping[str, str], output: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdin=subprocess.DEVNULL if output else subprocess.PIPE,
        stdout=output or subprocess.PIPE,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,  # Ctrl-C is for the measurement, which ends its programs in order
    )


def _wait_until_listening(process: subprocess.Popen[bytes], module: str, port: int, log: Path) -> None:
    limit = time.monotonic() + START_LIMIT_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    end_of_log = log.read_text(errors="replace")[-2000:]
    raise ProgramError(f"{module} does not listen on port {port}. The end of {log}:\n{end_of_log}")


def _end(process: subprocess.Popen[bytes], *, signal_it: bool = True) -> None:
    if signal_it:
        process.terminate()
    try:
        process.wait(STOP_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
