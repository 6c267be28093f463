"""The kill run's own rules: which kills count, and what is wrong with what users heard and got."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fault.crowd import User, expected, wrong_end, wrong_story
from tests.fault.kills import Kill, proof
from tests.support.log_lines import LogLines
from tests.support.recordings import wav
from tests.support.sse import Block

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


def heard(*told: tuple[int, int, str]) -> list[Block]:
    """Messages of these ids, progress and statuses."""
    return [Block(str(id_), data=json.dumps({"progress": progress, "status": s})) for id_, progress, s in told]


START, END = (1, 10, "processing"), (2, 100, "completed")


def test_a_story_in_order_with_one_end_is_right() -> None:
    assert wrong_story(heard(START, END)) is None


@pytest.mark.parametrize(
    "told",
    [
        (START, START, END),
        (START, (3, 100, "completed")),
        (START, END, END),
        (START, END, (3, 100, "completed")),
        ((1, 40, "processing"), (2, 10, "processing"), (3, 100, "completed")),
        ((1, 100, "completed"), (2, 100, "processing")),
        (START,),
    ],
    ids=["twice", "a gap", "the end twice", "two ends", "progress falls", "on after the end", "no end"],
)
def test_a_story_that_is_not_is_noticed(told: tuple[tuple[int, int, str], ...]) -> None:
    assert wrong_story(heard(*told))


RECORDING = wav(0.6, seed=1)


def ended(recording: bytes = RECORDING) -> dict[str, Any]:
    result = expected(recording)
    return {"status": "completed", "token_id": "mine", "s3_url": "s3://sori/audio/job.wav", "result": result}


def test_the_result_of_the_users_own_recording_is_right() -> None:
    assert wrong_end(User(0, "mine", 0.6, RECORDING, "job"), ended(), ended()) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda end: end | {"status": "failed"},
        lambda end: end | {"token_id": "another"},
        lambda end: end | {"s3_url": "s3://sori/audio/another.wav"},
        lambda end: end | {"result": ended(wav(0.601, seed=1))["result"]},
        lambda end: end | {"result": ended(wav(0.6, seed=2))["result"]},
    ],
    ids=["failed", "another token", "another's audio", "another length", "another sound"],
)
def test_an_end_that_is_not_the_users_own_is_noticed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    end = change(ended())
    assert wrong_end(User(0, "mine", 0.6, RECORDING, "job"), end, end)


def test_an_end_that_is_read_otherwise_than_it_was_heard_is_noticed() -> None:
    assert wrong_end(User(0, "mine", 0.6, RECORDING, "job"), ended(), ended() | {"result": {}})
