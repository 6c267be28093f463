"""Fixtures of the fault tests: the seed that plays a failure again, and a stack with a network to break."""

import os
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker, connected
from tests.support.bucket import Bucket
from tests.support.bucket import opened as bucket_of
from tests.support.front_end import FrontEnd
from tests.support.kept_logs import keep
from tests.support.proxied import Proxied, proxied_stack
from tests.support.rounds import Rounds
from tests.support.sori import Sori


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of everything random in a run: SORI_FAULT_SEED, else a new one. It is printed."""
    chosen = int(os.environ.get("SORI_FAULT_SEED") or secrets.randbelow(1_000_000))
    print(f"\nTo play this run again: SORI_FAULT_SEED={chosen}", flush=True)
    return chosen


@pytest.fixture(scope="session")
def proxied(analysis_server: AnalysisServer) -> Iterator[Proxied]:
    """A stack of its own whose programs reach one another through proxies."""
    with proxied_stack(analysis_server.url) as running:
        yield running


@pytest.fixture(scope="module")
def hurried(analysis_server: AnalysisServer, request: pytest.FixtureRequest) -> Iterator[Proxied]:
    """The same, for one file, where what stands still is told again after 2 s; its logs are kept if a test fails."""
    failed = request.session.testsfailed
    with proxied_stack(analysis_server.url, {"REDRIVE_AFTER": "2"}) as running:
        yield running
        if request.session.testsfailed > failed:
            keep(running.stack, request.path.stem)


@pytest.fixture(scope="module")
def hurried_sori(hurried: Proxied, client: httpx.AsyncClient) -> Sori:
    """The public surface of the hurried stack."""
    return Sori(client, hurried.stack.url, hurried.stack.settings["WEBHOOK_SECRET"])


@pytest.fixture(scope="module")
async def hurried_broker(hurried: Proxied) -> AsyncIterator[Broker]:
    """The RabbitMQ of the hurried stack, past the proxies."""
    async with connected(hurried.stack.settings["RABBITMQ_URL"]) as opened:
        yield opened


@pytest.fixture(scope="module")
async def hurried_database(hurried: Proxied) -> AsyncIterator[Any]:
    """The MongoDB of the hurried stack, past the proxies."""
    async with AsyncMongoClient[dict[str, Any]](hurried.stack.settings["MONGODB_URL"], tz_aware=True) as mongodb:
        yield mongodb.get_default_database()


@pytest.fixture
def hurried_rounds(hurried: Proxied, hurried_sori: Sori, seed: int, request: pytest.FixtureRequest) -> Rounds:
    """Jobs for one test of the hurried stack, with its own part of the run's seed."""
    return Rounds(FrontEnd(hurried_sori.client, hurried.url), hurried_sori, seed, request.node.name)


@pytest.fixture(scope="session")
def proxied_sori(proxied: Proxied, client: httpx.AsyncClient) -> Sori:
    """The public surface of the proxied stack."""
    return Sori(client, proxied.stack.url, proxied.stack.settings["WEBHOOK_SECRET"])


@pytest.fixture(scope="session")
async def proxied_broker(proxied: Proxied) -> AsyncIterator[Broker]:
    """The RabbitMQ of the proxied stack, past the proxies."""
    async with connected(proxied.stack.settings["RABBITMQ_URL"]) as opened:
        yield opened


@pytest.fixture(scope="session")
async def proxied_bucket(proxied: Proxied) -> AsyncIterator[Bucket]:
    """The bucket of the proxied stack, past the proxies."""
    async with bucket_of(proxied.stack.settings) as opened:
        yield opened


@pytest.fixture(scope="session")
async def proxied_jobs(proxied: Proxied) -> AsyncIterator[Any]:
    """The job documents of the proxied stack, past the proxies."""
    async with AsyncMongoClient[dict[str, Any]](proxied.stack.settings["MONGODB_URL"], tz_aware=True) as mongodb:
        yield mongodb.get_default_database()["jobs"]


@pytest.fixture
def rounds(proxied: Proxied, proxied_sori: Sori, seed: int, request: pytest.FixtureRequest) -> Rounds:
    """Jobs for one test of the proxied stack, with its own part of the run's seed.

    The front end reaches the edge through a proxy; what became of its jobs is looked up past it.
    """
    return Rounds(FrontEnd(proxied_sori.client, proxied.url), proxied_sori, seed, request.node.name)
