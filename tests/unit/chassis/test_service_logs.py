"""Logs of the four services: JSON lines with the ids of the work in hand, and no secrets in them."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.unit.services import SERVICES, Service


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """The service with its logging set up; the process's own is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield request.param
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    said = capsys.readouterr()
    assert said.err == ""
    return [json.loads(line) for line in said.out.splitlines()]


def test_a_line_has_time_level_service_event_and_the_ids_of_the_work_in_hand(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.logs.configure(service.name, "INFO")
    with structlog.contextvars.bound_contextvars(job_id="j", event_id="e", trace_id="t"):
        structlog.get_logger().info("event handled", type="upload.received.v1")
    (line,) = lines(capsys)
    assert line.pop("time").endswith("Z")
    assert line == {
        "service": service.name,
        "level": "info",
        "event": "event handled",
        "type": "upload.received.v1",
        "job_id": "j",
        "event_id": "e",
        "trace_id": "t",
    }


def test_libraries_speak_in_the_same_form_and_only_when_something_is_wrong(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.logs.configure(service.name, "DEBUG")
    logging.getLogger("httpx").info('HTTP Request: POST http://host/hook?signature=abc "HTTP/1.1 200 OK"')
    logging.getLogger("a.library").warning("lost %s\nand more", "it")
    (line,) = lines(capsys)
    assert (line["service"], line["level"], line["event"]) == (service.name, "warning", "lost it\nand more")
    assert line["time"]


def test_an_exception_is_one_line_too(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.logs.configure(service.name, "INFO")
    try:
        int("first line\nsecond line")
    except ValueError as error:
        structlog.get_logger().error("request failed", exc_info=error)
        logging.getLogger("a.library").exception("oh")
    ours, theirs = lines(capsys)
    assert "second line" in ours["exception"]
    assert "second line" in theirs["exception"]


@pytest.mark.parametrize(("level", "heard"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_the_level_says_what_is_heard(
    service: Service, level: str, heard: int, capsys: pytest.CaptureFixture[str]
) -> None:
    service.logs.configure(service.name, level)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert len(lines(capsys)) == heard


def test_a_line_takes_any_text(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    service.logs.configure(service.name, "INFO")
    structlog.get_logger().info("소리 🎤 \x1b[31m\n", reason="\ud800", path=b"/x", other=object)
    (line,) = lines(capsys)
    assert line["event"] == "소리 🎤 \x1b[31m\n"
