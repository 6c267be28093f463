"""The kill run's own rule: which kills count."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fault.crowd import User
from tests.fault.kills import Kill, proof
from tests.support.log_lines import LogLines

CLOCK = 100.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "notifier-2.log"
    path.write_text(line("mine"))
    return path


def line(job_id: str, event: str = "event handled", *, redelivered: bool = True) -> str:
    return json.dumps({"event": event, "job_id": job_id} | ({"redelivered": True} if redelivered else {})) + "\n"


def killed(part: str, log: Path, *, under_way: int = 1) -> Kill:
    burst = [User(0, "a-token", 1.0, b"", job_id="mine")]
    return Kill(part, [1], datetime.now(UTC), CLOCK, burst, under_way, [LogLines(log)])


def say(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_a_message_about_a_job_of_the_burst_that_is_delivered_again_is_proof(log: Path) -> None:
    kill = killed("notifier-1", log)
    say(log, line("mine") + line("mine") + line("mine", redelivered=False))
    assert proof(kill, None, []) == "2 messages were delivered again"


def test_what_was_delivered_again_before_the_kill_proves_nothing(log: Path) -> None:
    assert proof(killed("notifier-1", log), None, []) is None


def test_what_earlier_kills_may_have_left_proves_nothing(log: Path) -> None:
    kill = killed("notifier-1", log)
    say(log, line("of an earlier burst") + line("mine", redelivered=False) + "no JSON\n[]\n")
    assert proof(kill, killed("uploader-1", log), []) is None


def test_a_kill_right_after_the_brokers_own_proves_nothing(log: Path) -> None:
    kill = killed("notifier-1", log)
    say(log, line("mine"))
    assert proof(kill, killed("rabbitmq", log), []) is None


@pytest.mark.parametrize(("began", "ended", "cut"), [(99, 101, True), (98, 99, False), (101, 102, False)])
def test_a_gateways_kill_counts_when_an_open_upload_got_no_answer(
    log: Path, began: float, ended: float, cut: bool
) -> None:
    assert bool(proof(killed("gateway-1", log), None, [(began, ended)])) == cut


@pytest.mark.parametrize(("under_way", "counts"), [(3, True), (0, False)])
def test_a_back_ends_kill_counts_when_jobs_were_under_way(log: Path, under_way: int, counts: bool) -> None:
    assert bool(proof(killed("analysis-server", log, under_way=under_way), None, [])) == counts


def test_a_line_that_is_half_written_is_read_when_it_is_whole(log: Path) -> None:
    lines, text = LogLines(log), line("mine")
    say(log, text[:10])
    assert lines.new() == []
    say(log, text[10:])
    assert [found["job_id"] for found in lines.new()] == ["mine"]
