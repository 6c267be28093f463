"""What the gateway says when something happens that nobody expected: to the caller little, to the log all, once."""

import asyncio
import json
import logging
from collections.abc import Iterator

import httpx
import pytest
import structlog
import uvicorn
from fastapi import FastAPI

from chassis import logs
from gateway.web.problems import handle_errors
from tests.support.answers import assert_problem
from tests.support.waiting import until_true


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """Logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def failing() -> FastAPI:
    """An application with an address at which it always fails."""
    app = FastAPI()

    @app.get("/fails")
    async def fails() -> None:
        raise LookupError

    handle_errors(app)
    return app


@pytest.mark.usefixtures("_own_logging")
async def test_what_nobody_expected_is_logged_once_with_its_path(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("gateway", "INFO")
    server = uvicorn.Server(uvicorn.Config(failing(), port=0, log_config=None, access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    await until_true(lambda: server.started, "the server to start")
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/fails?secret=1")
    server.should_exit = True
    await serving
    assert_problem(answer, 500, "internal_error")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (line["level"], line["path"], line["service"]) == ("error", "/fails", "gateway")
    assert "LookupError" in line["exception"]
