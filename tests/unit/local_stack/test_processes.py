"""The process manager's configuration, and how the stack's processes are told from all others."""

import configparser
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

from local_stack import processes
from local_stack.credentials import load_credentials
from local_stack.errors import PartFailedError
from local_stack.logs import Log
from local_stack.part import NotReadyError, Part
from local_stack.plan import Plan
from local_stack.ports import Ports
from local_stack.readiness import Readiness, Silence
from local_stack.supervision import State, Supervisor, configuration

SLEEPER = (sys.executable, "-c", "import sys; print('here', flush=True); sys.stdin.read()")


def until(fact: Callable[[], bool], seconds: float = 10) -> None:
    limit = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < limit, "not within the time"
        threading.Event().wait(0.02)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that stays until it is ended; the test's end ends it too."""
    started: list[subprocess.Popen[bytes]] = []

    def run(env: dict[str, str], *command: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command or SLEEPER, env=dict(os.environ) | env, stdin=pipe, stdout=pipe)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def part(name: str, check: Callable[[], None]) -> Part:
    return Part(name=name, command=("x",), env={}, ports={}, address="", check_ready=check)


def test_each_part_is_a_program_in_the_group_that_stops_at_its_turn(tmp_path: Path) -> None:
    parts = Plan(tmp_path, Ports.from_base(8000), 2, {}, only_backends=False).parts
    parser = configparser.RawConfigParser()
    parser.read_string(configuration(parts.values()))
    programs = {section.removeprefix("program:") for section in parser.sections() if section.startswith("program:")}
    assert programs == set(parts)
    groups = {name: parser[f"group:{name}"] for name in ("ports", "backends", "services")}
    assert [int(group["priority"]) for group in groups.values()] == [0, 1, 2]
    assert sorted(name for group in groups.values() for name in group["programs"].split(",")) == sorted(parts)


def test_the_process_managers_configuration_holds_no_secret_and_no_path(tmp_path: Path) -> None:
    text = configuration(Plan(tmp_path, Ports.from_base(8000), 1, {}, only_backends=False).parts.values())
    assert not any(secret in text for secret in astuple(load_credentials(tmp_path)))
    assert str(tmp_path) not in text


def test_the_processes_of_a_stack_are_found_by_their_mark(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    mine = start(processes.mark(tmp_path / "a", "gateway-1"))
    start(processes.mark(tmp_path / "b", "gateway-1"))
    start(processes.mark(tmp_path / "a" / "b", "gateway-1"))
    start({})
    assert processes.of_stack(tmp_path / "a") == {mine.pid: "gateway-1"}
    assert processes.of_part(tmp_path / "a", "gateway-1") == [mine.pid]
    assert processes.of_part(tmp_path / "a", "gateway-2") == []


def test_what_a_part_has_started_carries_its_mark(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    parent = start(processes.mark(tmp_path, "rabbitmq"), sys.executable, "-c", script, SLEEPER[-1])
    found = processes.of_part(tmp_path, "rabbitmq")
    assert parent.pid in found
    assert len(found) == 2


def test_ending_some_parts_leaves_the_others(tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]) -> None:
    ended, kept = start(processes.mark(tmp_path, "s3")), start(processes.mark(tmp_path, "mongod"))
    threading.Thread(target=ended.wait).start()
    processes.end(tmp_path, {"s3"}, patience=10)
    assert processes.of_stack(tmp_path) == {kept.pid: "mongod"}


def test_a_process_that_does_not_listen_to_sigterm_is_killed(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    deaf = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER[-1].removeprefix(
        "import sys; "
    )
    process = start(processes.mark(tmp_path, "s3"), sys.executable, "-c", deaf)
    threading.Thread(target=process.wait).start()
    processes.end(tmp_path, {"s3"}, patience=0.2)
    assert processes.of_stack(tmp_path) == {}
    assert process.wait() == -9


def launch(home: Path, **spec: object) -> subprocess.CompletedProcess[str]:
    (home / "parts").mkdir(parents=True, exist_ok=True)
    script = "import os; print(os.getcwd(), os.environ['SECRET'], os.environ['SORI_PART'])"
    default = {"command": [sys.executable, "-c", script], "env": {"SECRET": "a 'b' %c"}, "after_port": None}
    (home / "parts" / "s3.json").write_text(json.dumps(default | spec))
    env = dict(os.environ) | processes.mark(home, processes.SUPERVISOR)
    command = [sys.executable, "-m", "local_stack.launch", "s3"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=30)


def test_a_part_is_launched_in_the_home_with_its_own_environment(tmp_path: Path) -> None:
    assert launch(tmp_path).stdout == f"{tmp_path} a 'b' %c s3\n"


def test_what_a_killed_part_left_running_is_ended_before_its_successor_starts(
    tmp_path: Path, start: Callable[..., subprocess.Popen[bytes]]
) -> None:
    left, other = start(processes.mark(tmp_path, "s3")), start(processes.mark(tmp_path, "mongod"))
    assert launch(tmp_path).returncode == 0
    assert left.wait(timeout=10) == -9
    assert other.poll() is None


def test_a_part_waits_for_the_port_that_it_needs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as needed:
        assert launch(tmp_path, after_port=needed.getsockname()[1]).returncode == 0


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = launch(tmp_path, command=["/no/such/program"])
    assert missing.returncode == 1
    assert missing.stderr == "/no/such/program does not start: No such file or directory\n"


class Parts(Supervisor):
    """A process manager that says what the test wants."""

    def __init__(self, states: Callable[[], dict[str, State]]) -> None:
        self._states = states

    def states(self) -> dict[str, State]:
        return self._states()


def running(*names: str) -> dict[str, State]:
    return {name: State("RUNNING", 1) for name in names}


def test_all_parts_are_waited_for(tmp_path: Path) -> None:
    asked = iter(range(1000))

    def check() -> None:
        if next(asked) < 3:
            raise NotReadyError("not yet")

    reported: list[str] = []

    class Reported(Silence):
        def ready(self, part: Part, seconds: float) -> None:
            assert seconds >= 0
            reported.append(part.name)

    parts = [part("late", check), part("early", lambda: None)]
    Readiness(parts, Parts(lambda: running("late", "early")), tmp_path, timeout=30).wait(Reported())
    assert reported == ["early", "late"]


def never() -> None:
    raise NotReadyError("it waits for a back end")


def test_the_first_part_that_is_not_ready_in_time_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "mongod.log").write_text("".join(f"line {n}\n" for n in range(100)))
    waiting = Readiness(
        [part("mongod", never), part("gateway-1", never)], Parts(lambda: running("mongod", "gateway-1")), tmp_path, 0.1
    )
    with pytest.raises(PartFailedError, match="mongod is not ready after 0 s: it waits for a back end") as failed:
        waiting.wait(Silence())
    assert failed.value.details[-1] == "line 99"
    assert len(failed.value.details) == 15


def test_a_part_that_keeps_ending_is_not_waited_for(tmp_path: Path) -> None:
    starts = iter(range(1000))
    states = Parts(lambda: {"gateway-1": State("BACKOFF", next(starts))})
    with pytest.raises(PartFailedError, match="gateway-1 ends as soon as it is started"):
        Readiness([part("gateway-1", never)], states, tmp_path, timeout=60).wait(Silence())


def test_nothing_is_waited_for_once_the_process_manager_is_gone(tmp_path: Path) -> None:
    with pytest.raises(PartFailedError, match="was stopped"):
        Readiness([part("gateway-1", never)], Parts(dict), tmp_path, timeout=60).wait(Silence())


def test_a_log_is_read_on_across_its_rotation_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "gateway-1.log"
    path.write_text("one\ntwo\nthr")
    log = Log(path)
    assert log.last(1) == ["two"]
    with path.open("a") as file:
        file.write("ee\nfour\n")
    path.rename(tmp_path / "gateway-1.log.1")
    path.write_text("five\n")
    assert list(log.new()) == ["three", "four", "five"]
    assert list(log.new()) == []
    log.close()
