"""Logs of any service: JSON lines with the ids of the work in hand, and no secrets in them."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from chassis import logs

SERVICE = "gateway"
SECRET = "signature=0123456789abcdef"


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    said = capsys.readouterr()
    assert said.err == ""
    return [json.loads(line) for line in said.out.splitlines()]


def test_a_line_has_time_level_service_event_and_the_ids_of_the_work_in_hand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure(SERVICE, "INFO")
    with structlog.contextvars.bound_contextvars(job_id="j", event_id="e", trace_id="t"):
        structlog.get_logger().info("event handled", type="upload.received.v1")
    (line,) = lines(capsys)
    assert list(line)[:4] == ["time", "level", "service", "event"], "what a reader looks for comes first"
    assert line.pop("time").endswith("Z")
    assert line == {
        "service": SERVICE,
        "level": "info",
        "event": "event handled",
        "type": "upload.received.v1",
        "job_id": "j",
        "event_id": "e",
        "trace_id": "t",
    }


def test_libraries_speak_in_the_same_form_and_only_when_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, "DEBUG")
    logging.getLogger("httpx").info('HTTP Request: POST http://host/hook?signature=abc "HTTP/1.1 200 OK"')
    logging.getLogger("a.library").warning("lost %s\nand more", "it")
    (line,) = lines(capsys)
    assert (line["service"], line["level"], line["event"]) == (SERVICE, "warning", "lost it\nand more")
    assert line["time"]


def test_an_exception_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, "INFO")
    try:
        int("first line\nsecond line")
    except ValueError as error:
        structlog.get_logger().error("request failed", exc_info=error)
        logging.getLogger("a.library").exception("oh")
    ours, theirs = lines(capsys)
    assert "second line" in ours["exception"]
    assert "second line" in theirs["exception"]


@pytest.mark.parametrize(("level", "heard"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_the_level_says_what_is_heard(level: str, heard: int, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, level)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert len(lines(capsys)) == heard


def test_a_line_takes_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, "INFO")
    structlog.get_logger().info("소리 🎤 \x1b[31m\n", reason="\ud800", path=b"/x", other=object)
    (line,) = lines(capsys)
    assert line["event"] == "소리 🎤 \x1b[31m\n"


def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, "INFO")
    address = f"http://host/?{SECRET}"
    try:
        int("no number", base=len(address) % 30)
    except ValueError:
        structlog.get_logger().exception("job-failed")
    (line,) = lines(capsys)
    assert SECRET not in json.dumps(line)
    assert Path(__file__).name in line["exception"]


def test_the_http_client_does_not_log_the_addresses_it_calls(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(SERVICE, "DEBUG")
    with httpx.Client(transport=httpx.MockTransport(lambda _request: httpx.Response(200))) as client:
        client.post(f"http://host/?{SECRET}")
    assert SECRET not in capsys.readouterr().out
