"""What people and programs see of sorictl: readable at 80 columns, no secrets, no control codes, short errors."""

import json
import logging
import re
import sys
import uuid
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from contracts import events, topology
from sorictl import cli, rendering
from sorictl.letter import Message, read
from sorictl.redaction import HIDDEN
from tests.support.events import Story

QUEUE = topology.NOTIFIER_QUEUES[0]
SECRETS = {
    "password": "hunter2",
    "X-Amz-Security-Token": "hunter2",
    "address": "amqp://sori:hunter2@host/",
    "webhook": "http://sori/webhook?job_id=1&signature=hunter2&attempt=1",
    "nested": [{"Authorization": "Bearer hunter2"}],
}
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
CODES = "\x1b[2J\x9b31m\x07\r"


def text(shown: RenderableType, columns: int = 80) -> str:
    console = Console(file=StringIO(), width=columns, highlight=False)
    console.print(shown, soft_wrap=False)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def poison(body: object, message_id: str | None = None, reason: str = "invalid event") -> Message:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(content, message_id, {topology.REASON_HEADER: reason, topology.ATTEMPT_HEADER: 2})


@pytest.mark.parametrize("columns", [80, 160])
def test_a_list_shows_whole_ids_and_reasons_within_the_columns(columns: int) -> None:
    told = Story(str(uuid.uuid4())).upload_received()
    reason = "UnavailableError: " + "the database did not answer in time " * 4
    headers = {topology.REASON_HEADER: reason, topology.ATTEMPT_HEADER: 12, topology.REPLAYS_HEADER: 1}
    letters = [read(QUEUE, Message(told.encode(), told.id, headers)), read(QUEUE, poison(b"\x00"))]
    lines = text(rendering.table(letters), columns).splitlines()
    assert max(len(line) for line in lines) <= columns
    shown = "\n".join(lines)
    assert all(part in shown for part in (told.id, told.subject, told.type, f"{QUEUE.name}: 2 dead letters"))
    assert "12 tries, 1 replay" in shown
    assert "job unknown" in shown
    words = " ".join(line[36:].strip() if line[:1].strip() else line.strip() for line in lines)
    assert reason.strip() in re.sub(r"\s+", " ", words)


def test_secrets_are_never_shown() -> None:
    message = Message(
        json.dumps({"data": SECRETS}).encode(),
        "1",
        {**SECRETS, topology.REASON_HEADER: "cannot reach amqp://sori:hunter2@host/"},
    )
    letter = read(QUEUE, message)
    for shown in (
        text(rendering.whole(letter, message, full=True)),
        text(rendering.table([letter])),
        rendering.whole_json(letter, message, full=True),
        rendering.line_json(letter),
    ):
        assert "hunter2" not in shown
        assert HIDDEN in shown


def test_nothing_of_a_message_acts_on_the_terminal() -> None:
    for message in (poison({"type": CODES}, CODES, CODES), poison(CODES.encode("latin-1"), CODES, CODES)):
        letter = read(QUEUE, message)
        for shown in (
            text(rendering.whole(letter, message, full=True)),
            text(rendering.table([letter])),
            rendering.whole_json(letter, message, full=True),
            rendering.line_json(letter),
        ):
            assert not UNSAFE.search(shown), repr(shown)


def test_long_results_are_shortened_and_say_by_how_much_unless_they_are_asked_for_in_full() -> None:
    result: events.JsonObject = {"text": "a" * 1000, "values": list(range(100)), "score": 87.5}
    data = events.AnalysisCompletedData(token_id="t", s3_url="s3://b/k", result=result, cached=False)
    trace = events.continued_trace(None)
    event = events.AnalysisCompleted.new(str(uuid.uuid4()), data, source="analyzer-bridge", traceparent=trace)
    message = Message(event.encode(), event.id, {})
    letter = read(QUEUE, message)
    short = json.loads(rendering.whole_json(letter, message, full=False))["event"]["data"]["result"]
    assert short["text"] == "a" * 200 + "… (800 more characters)"
    assert short["values"] == [*range(8), "… (92 more)"]
    assert short["score"] == 87.5
    assert json.loads(rendering.whole_json(letter, message, full=True))["event"]["data"]["result"] == result
    assert '"score": 87.5' in text(rendering.whole(letter, message, full=False))


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"NaN", b"[" * 5000, b'{"a": 1', b'"text"', b"17"])
def test_a_body_of_any_kind_can_be_shown(body: bytes) -> None:
    message = poison(body)
    assert "invalid event" in text(rendering.whole(read(QUEUE, message), message, full=False))
    assert json.loads(rendering.whole_json(read(QUEUE, message), message, full=True))["reason"] == "invalid event"


def test_a_program_reads_times_as_iso_8601() -> None:
    told = Story(str(uuid.uuid4())).upload_received()
    headers = {topology.LAST_FAILURE_HEADER: datetime(2026, 11, 1, 12, tzinfo=UTC).isoformat()}
    line = json.loads(rendering.line_json(read(QUEUE, Message(told.encode(), told.id, headers))))
    assert line["last_failure"] == "2026-11-01T12:00:00Z"


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str, url: str | None
) -> tuple[int, str]:
    """Run a command that must fail; gives its exit status and what it said."""
    monkeypatch.setattr(sys, "argv", ["sorictl", "dead-letters", *arguments])
    if url is None:
        monkeypatch.delenv("RABBITMQ_URL", raising=False)
    else:
        monkeypatch.setenv("RABBITMQ_URL", url)
    monkeypatch.setattr(logging, "disable", lambda: None)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "hunter2" not in said.err
    return int(exited.value.code or 0), said.err


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        (None, 2, "setting RABBITMQ_URL: Field required"),
        ("", 2, "setting RABBITMQ_URL: Field required"),
        ("hunter2", 2, "setting RABBITMQ_URL: Input should be a valid URL"),
        ("http://sori:hunter2@host/", 2, "setting RABBITMQ_URL: URL scheme should be 'amqp' or 'amqps'"),
        ("amqp://sori:hunter2@127.0.0.1:1/", 1, "RabbitMQ at 127.0.0.1:1 cannot be reached"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    url: str | None, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")  # where there is no .env
    exit_status, err = run(monkeypatch, capsys, "list", url=url)
    assert exit_status == status
    assert err.startswith(f"sorictl: {said}")
    assert err.count("\n") == 1


def test_the_address_may_stand_in_the_env_file_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LOG_LEVEL=INFO\nRABBITMQ_URL=amqp://127.0.0.1:2/\n")
    assert "127.0.0.1:2 cannot" in run(monkeypatch, capsys, "list", url=None)[1]
    assert "127.0.0.1:1 cannot" in run(monkeypatch, capsys, "list", url="amqp://127.0.0.1:1/")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--older-than", "soon"),
        ("replay", "--newer-than", "5"),
        ("discard", "--queue", "nobody"),
        ("show", "--limit", "0"),
        ("list", "--colour"),
        ("bury",),
    ],
)
def test_a_wrong_option_exits_with_2(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, capsys, *arguments, url="amqp://127.0.0.1:1/")[0] == 2


def test_the_help_names_every_kind_of_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sorictl", "--help"])
    monkeypatch.setattr(logging, "disable", lambda: None)
    with pytest.raises(SystemExit) as exited:
        cli.main()
    shown = capsys.readouterr().out
    assert exited.value.code in (None, 0)
    assert all(name in shown for name in ("setup", "dead-letters", "jobs redrive", "catalogue"))
