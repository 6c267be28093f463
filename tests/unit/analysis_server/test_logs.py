"""The analysis server's log: one JSON object a line, with what a reader needs and nothing that is secret."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from analysis_server import logs
from analysis_server.job import Job

SECRET = "signature=0123456789abcdef"


@pytest.fixture
def _logging() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("_logging")
def test_a_line_starts_with_time_level_service_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO")
    with structlog.contextvars.bound_contextvars(job_id="j1"):
        structlog.get_logger().info("job-accepted", extra_field=1)
    logging.getLogger("a.library").warning("said %s", "something")
    structlog.get_logger().debug("unheard")
    ours, theirs = lines(capsys)
    assert list(ours)[:4] == list(theirs)[:4] == ["time", "level", "service", "event"]
    assert (ours["event"], ours["job_id"], ours["extra_field"]) == ("job-accepted", "j1", 1)
    assert (theirs["event"], theirs["level"]) == ("said something", "warning")


@pytest.mark.usefixtures("_logging")
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("INFO")
    address = f"http://host/?{SECRET}"
    try:
        int("no number", base=len(address) % 30)
    except ValueError:
        structlog.get_logger().exception("job-failed")
    (line,) = lines(capsys)
    assert SECRET not in json.dumps(line)
    assert Path(__file__).name in json.dumps(line["exception"])


@pytest.mark.usefixtures("_logging")
def test_the_http_client_does_not_log_the_addresses_it_calls(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("DEBUG")
    with httpx.Client(transport=httpx.MockTransport(lambda _request: httpx.Response(200))) as client:
        client.post(f"http://host/?{SECRET}")
    assert SECRET not in capsys.readouterr().out


def test_a_job_does_not_show_its_webhook() -> None:
    job = Job("j", "s3://b/k", "k", f"http://host/?{SECRET}", "v", (), {}, None)
    assert SECRET not in repr(job)
