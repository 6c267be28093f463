"""What tests share: one whole stack for the run, started when a test first asks for it, and ways to look into it."""

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from local_stack.stack import Stack
from tests.bench.peers import servers
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker, connected
from tests.support.bucket import Bucket
from tests.support.bucket import opened as bucket_of
from tests.support.sori import Sori, new_token
from tests.support.stacks import BASELINE_OFFSET, STACKS, log_sizes, log_tails, logs_shown, running_stack
from tests.support.unanswered import Unanswered

MAX_UPLOAD_BYTES = 64 * 1024 * 1024
ANALYSIS_TIMEOUT_SECONDS = 11
"""Twice this is longer than a heartbeat takes to come."""
INBOX_MAX_AGE_SECONDS = 30
"""Longer than any upload of the tests takes."""
LIMIT_REQUESTS = 200
"""A minute; the tests themselves call from the inner network, which has no limits."""
SETTINGS = {
    "MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
    "MAX_AUDIO_SECONDS": "60",
    "ANALYSIS_TIMEOUT": str(ANALYSIS_TIMEOUT_SECONDS),
    "ANALYSIS_ATTEMPTS": "2",
    "CORS_ORIGINS": "https://front.example",
    "INBOX_MAX_AGE": str(INBOX_MAX_AGE_SECONDS),
    "LIMIT_REQUESTS": str(LIMIT_REQUESTS),
}
LOG_LINES = 25

_LOG_SIZES = pytest.StashKey[Mapping[Path, int]]()


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name what is given in bytes after its argument: packed bytes hold the time, and workers must agree on names."""
    return argname if isinstance(val, bytes) else None


@dataclass(frozen=True)
class Baseline:
    """The single process that Sori replaces, as it runs beside the stack: same S3, same analysis server."""

    url: str
    pid: int


@pytest.fixture(scope="session")
def analysis_server() -> Iterator[AnalysisServer]:
    """The external analysis server that the stack calls."""
    with AnalysisServer.running() as server:
        yield server


@pytest.fixture(scope="session")
def stack(analysis_server: AnalysisServer, pytestconfig: pytest.Config) -> Iterator[Stack]:
    """A whole stack, two replicas of every service, on ports and data of this run's own."""
    given = {**SETTINGS, "TARGET_SERVER_URL": analysis_server.url}
    with running_stack(given) as running, logs_shown(pytestconfig, running):
        yield running


@pytest.fixture(scope="session")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client without limits of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
    async with httpx.AsyncClient(timeout=30, limits=limits, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def sori(stack: Stack, client: httpx.AsyncClient) -> Sori:
    """The stack's public surface, through the edge."""
    return Sori(client, stack.url, stack.settings["WEBHOOK_SECRET"])


@pytest.fixture(scope="session")
async def bucket(stack: Stack) -> AsyncIterator[Bucket]:
    """The stack's bucket."""
    async with bucket_of(stack.settings) as opened:
        yield opened


@pytest.fixture(scope="session")
async def jobs(stack: Stack) -> AsyncIterator[Any]:
    """The collection of job documents."""
    async with AsyncMongoClient[dict[str, Any]](stack.settings["MONGODB_URL"], tz_aware=True) as mongodb:
        yield mongodb.get_default_database()["jobs"]


@pytest.fixture(scope="session")
async def broker(stack: Stack) -> AsyncIterator[Broker]:
    """The stack's RabbitMQ."""
    async with connected(stack.settings["RABBITMQ_URL"]) as opened:
        yield opened


@pytest.fixture(scope="session")
def baseline(stack: Stack) -> Iterator[Baseline]:
    """The baseline, on the stack's S3 and analysis server."""
    port = stack.plan.ports.edge + BASELINE_OFFSET
    with servers.baseline(port, stack.settings, stack.log("baseline")) as server:
        yield Baseline(f"http://127.0.0.1:{port}", server.pid)


@pytest.fixture(scope="session")
async def unanswered(sori: Sori, broker: Broker) -> Unanswered:
    """A job that was asked for as often as the settings allow, then given up: it takes long, so there is one."""
    token_id = new_token("never-calls-back")
    async with broker.overhearing() as overheard:
        job = Unanswered(await sori.job(token_id=token_id), token_id, overheard=overheard)
        await job.listen(sori.client, sori.progress_url(job.job_id))
    return job


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how long the stacks' logs are, so that a failure can show what was said during its test."""
    stacks = item.config.stash.get(STACKS, [])
    item.stash[_LOG_SIZES] = {path: size for stack in stacks for path, size in log_sizes(stack).items()}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the stacks said meanwhile."""
    report = yield
    for stack in item.config.stash.get(STACKS, []) if report.failed else ():
        for part, tail in log_tails(stack, item.stash.get(_LOG_SIZES, {}), LOG_LINES).items():
            report.sections.append((f"log of {part}", tail))
    return report
