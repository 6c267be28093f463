"""Every outage at start-up: a service starts all the same, says what it waits for, and works once that is there."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.contract.service_process import SERVICES, Service, ServiceProcess
from tests.support.ports import free_port
from tests.support.proxied import BACK_ENDS, Proxied
from tests.support.proxy import Proxy
from tests.support.rounds import Rounds
from tests.support.waiting import until

EVERYTHING = tuple(BACK_ENDS)
AWAY = [
    *(pytest.param((name,), id=name, marks=pytest.mark.full) for name in BACK_ENDS),
    pytest.param(EVERYTHING, id="everything"),
]
SAID_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""How long a service may need after its back end is there, if it has begun to talk to one that never answered."""


@dataclass
class Starting:
    """One more replica of a service, with its own proxies to its back ends."""

    service: Service
    process: ServiceProcess
    ways: dict[str, Proxy]


@asynccontextmanager
async def starting(
    proxied: Proxied, service: Service, away: Collection[str], silent: bool, log: Path
) -> AsyncIterator[Starting]:
    """Start a service while these back ends are away; it is killed when the block ends."""
    settings = proxied.stack.settings
    ways = {
        name: proxied.network.in_front_of(f"{service.name}>{name}", settings[BACK_ENDS[name]])
        for name in service.back_ends
    }
    for way in (ways[name] for name in service.back_ends if name in away):
        if silent:
            way.swallow()
        else:
            way.refuse()
    moved = {BACK_ENDS[name]: way.through(settings[BACK_ENDS[name]]) for name, way in ways.items()}
    listen = free_port()
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            service.package,
            env={"PATH": os.environ["PATH"], **settings, **moved, "PORT": str(listen)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=asyncio.subprocess.STDOUT,
        )
    running = ServiceProcess(process, f"http://127.0.0.1:{listen}", {}, log)
    try:
        yield Starting(service, running, ways)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for way in ways.values():
            way.close()


def report(service: Service, away: Collection[str]) -> dict[str, str]:
    """The checks that a service must report about its back ends; without a broker it has no consumers either."""
    lost = {*away, *(["consumers"] if "rabbitmq" in away else [])}
    names = {*service.back_ends, *(["consumers"] if service.consumes else [])}
    return {name: "down" if name in lost else "up" for name in names}


@pytest.mark.parametrize("silent", [False, pytest.param(True, marks=pytest.mark.full)], ids=["refusing", "silent"])
@pytest.mark.parametrize("away", AWAY)
async def test_every_service_starts_before_its_back_ends_and_waits_for_them(
    proxied: Proxied, client: httpx.AsyncClient, tmp_path: Path, *, rounds: Rounds, away: tuple[str, ...], silent: bool
) -> None:
    began = time.monotonic()
    async with AsyncExitStack() as opened:
        waiting = [
            await opened.enter_async_context(starting(proxied, service, away, silent, tmp_path / service.name))
            for service in SERVICES
            if set(service.back_ends) & set(away)
        ]
        rounds.say(f"{', '.join(s.service.name for s in waiting)} started, {', '.join(away)} away")
        await asyncio.gather(*(says_what_it_waits_for(client, s, away) for s in waiting))
        rounds.say(f"each is alive, and says what it waits for, within {time.monotonic() - began:.1f} s")
        back = time.monotonic()
        for way in (way for s in waiting for way in s.ways.values()):
            way.heal()
        ready = await asyncio.gather(*(is_ready(client, s, back) for s in waiting))
        took = {s.service.name: seconds for s, seconds in zip(waiting, ready, strict=True)}
        rounds.say(f"ready by themselves after {took}")
        assert [await s.process.stop() for s in waiting] == [0] * len(waiting)


async def says_what_it_waits_for(client: httpx.AsyncClient, starting: Starting, away: Collection[str]) -> None:
    """Wait until it reports what it waits for; it must be alive all the while."""
    expected = report(starting.service, away)

    async def look() -> httpx.Response | None:
        answer = await starting.process.health(client)
        return answer if answer is not None and says(answer, expected) else None

    answer = await until(look, f"{starting.service.name} says {expected}", limit_seconds=SAID_SECONDS)
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    live = await starting.process.health(client, "/health/live")
    assert live is not None
    assert live.status_code == 200


def says(answer: httpx.Response, expected: dict[str, str]) -> bool:
    checks = answer.json()["checks"]
    return {name: checks.get(name) for name in expected} == expected


async def is_ready(client: httpx.AsyncClient, starting: Starting, back: float) -> float:
    """Wait until it is ready; return the seconds since its back ends were there."""

    async def look() -> httpx.Response | None:
        answer = await starting.process.health(client)
        return answer if answer is not None and answer.status_code == 200 else None

    answer = await until(look, f"{starting.service.name} is ready", limit_seconds=SILENT_SECONDS)
    assert says(answer, report(starting.service, ()))
    return round(time.monotonic() - back, 1)
