"""The four services seen from outside: the same health, the same logs, one trace from end to end, no secret told."""

import asyncio
import re
import sys
import uuid
from collections.abc import AsyncIterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest

from contracts import events, topology
from local_stack.stack import Stack
from tests.contract.service_process import BACK_ENDS, SERVICES, Service, ServiceProcess, log_lines
from tests.support.analysis_server import AnalysisServer
from tests.support.broker import Broker
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.waiting import until

REPLICAS = (1, 2)
TYPES_HANDLED = {
    "uploader": {"upload.received.v1"},
    "analyzer-bridge": {"audio.stored.v1", "analysis.webhook-received.v1"},
    "notifier": {"upload.received.v1", "audio.stored.v1", "analysis.requested.v1", "analysis.completed.v1"},
}
"""What each subscriber logs as handled when all goes well."""


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


@pytest.fixture
async def process(service: Service, stack: Stack, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    """One more replica of the service, whose back ends cannot be reached until their doors are opened."""
    async with ServiceProcess.running(service, stack.settings, tmp_path / "log") as running:
        yield running


def report(service: Service, down: set[str]) -> dict[str, str]:
    """The checks of a service that cannot reach these back ends; who has no broker has no consumers either."""
    lost = down | ({"consumers"} & service.checks if "rabbitmq" in down else set())
    return {name: "down" if name in lost else "up" for name in service.checks}


@pytest.mark.parametrize("replica", REPLICAS)
@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_a_service_that_works_says_so(
    service: Service, replica: int, path: str, stack: Stack, client: httpx.AsyncClient
) -> None:
    answer = await client.get(f"{stack.parts[f'{service.name}-{replica}'].address}{path}")
    assert answer.status_code == 200
    # Other tests may have left dead letters, of which /health alone warns.
    assert {**answer.json(), "warnings": []} == {
        "status": "ok",
        "service": service.name,
        "version": version(f"sori-{service.name}"),
        "checks": report(service, set()),
        "warnings": [],
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live", "/metrics"])
async def test_a_service_answers_head_for_who_only_looks_whether_it_works(
    service: Service, path: str, stack: Stack, client: httpx.AsyncClient
) -> None:
    answer = await client.head(f"{stack.parts[f'{service.name}-1'].address}{path}")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("replica", REPLICAS)
async def test_a_live_process_says_so(service: Service, replica: int, stack: Stack, client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{stack.parts[f'{service.name}-{replica}'].address}/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_readiness_follows_every_back_end_and_the_process_lives_on(
    service: Service, process: ServiceProcess, client: httpx.AsyncClient, stack: Stack
) -> None:
    """It starts before its back ends and finds each again after an outage; what it says meanwhile is no secret."""
    everything = set(service.back_ends)
    answer = await process.until_checks(client, report(service, everything))
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    for door in process.doors.values():
        await door.open()
    answer = await process.until_checks(client, report(service, set()))
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    for back_end in service.back_ends:
        await process.doors[back_end].shut()
        answer = await process.until_checks(client, report(service, {back_end}))
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        overall, live = await process.health(client, "/health"), await process.health(client, "/health/live")
        assert overall is not None
        assert live is not None
        assert (overall.status_code, live.status_code) == (503, 200)
        await process.doors[back_end].open()
        await process.until_checks(client, report(service, set()))
    assert await process.stop() == 0
    assert_well_formed(service.name, process.said)
    assert not told(process.said, secrets(stack))


async def test_a_service_stops_cleanly_while_its_back_ends_are_away(
    service: Service, process: ServiceProcess, client: httpx.AsyncClient
) -> None:
    await process.until_checks(client, report(service, set(service.back_ends)))
    assert await process.stop() == 0
    assert_well_formed(service.name, process.said)


async def test_a_service_without_its_settings_exits_with_2_and_names_them(service: Service) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        service.package,
        env={"WEBHOOK_SECRET": "hunter2"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    lines = errors.decode().splitlines()
    assert all(re.fullmatch(rf"{service.name}: setting [A-Z0-9_]+: .+ \(see \.env\.example\)", line) for line in lines)
    named = {line.split()[2].rstrip(":") for line in lines}
    # S3 itself has a default: AWS.
    assert named >= {BACK_ENDS[back_end] for back_end in service.back_ends} - {"S3_ENDPOINT_URL"}
    assert b"hunter2" not in errors


def assert_well_formed(service: str, said: str) -> None:
    for line in log_lines(said):
        assert {"time", "level", "service", "event"} <= set(line), line
        assert line["service"] == service
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["time"])
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}


def said_by(stack: Stack, service: str) -> list[dict[str, Any]]:
    """The log lines of all replicas of a service; a line that is still being written is left out."""
    texts = (stack.log(f"{service}-{replica}").read_text(encoding="utf-8") for replica in REPLICAS)
    return [line for text in texts for line in log_lines(text[: text.rfind("\n") + 1])]


async def test_every_line_that_a_service_logs_is_json_that_names_it(service: Service, stack: Stack, sori: Sori) -> None:
    await sori.completed()
    for replica in REPLICAS:
        text = stack.log(f"{service.name}-{replica}").read_text(encoding="utf-8")
        assert_well_formed(service.name, text[: text.rfind("\n") + 1])


async def test_one_trace_leads_from_the_upload_to_the_last_event_through_all_four_services(
    stack: Stack, sori: Sori, broker: Broker
) -> None:
    trace_id = uuid.uuid4().hex
    async with broker.overhearing() as overheard:
        accepted = await sori.upload(headers={"traceparent": f"00-{trace_id}-{uuid.uuid4().hex[:16]}-01"})
        job_id = accepted.json()["job_id"]
        await overheard.until(job_id, events.AnalysisCompleted)
        published = {event.id: event for event in overheard.of(job_id)}
    assert {event.trace_id for event in published.values()} == {trace_id}

    async def handled() -> dict[str, list[dict[str, Any]]] | None:
        lines: dict[str, list[dict[str, Any]]] = {
            name: [line for line in said_by(stack, name) if line.get("trace_id") == trace_id]
            for name in topology.SERVICES
        }
        done = all(
            kinds <= {line["type"] for line in lines[name] if line["event"] == "event handled"}
            for name, kinds in TYPES_HANDLED.items()
        )
        return lines if done else None

    lines = await until(handled, f"all four services logging trace {trace_id}")
    assert all(lines[name] for name in topology.SERVICES)
    for name, said in lines.items():
        assert {line["job_id"] for line in said} == {job_id}
        for line in said:
            if line["event"] == "event handled":
                assert published[line["event_id"]].type == line["type"]
                assert line["queue"].startswith(f"{name}.")


async def test_an_upload_without_a_trace_begins_one(sori: Sori, broker: Broker) -> None:
    async with broker.overhearing() as overheard:
        jobs = [await sori.job(), await sori.job()]
        traces = [{event.trace_id for event in await overheard.until(job, events.UploadReceived)} for job in jobs]
    assert [len(found) for found in traces] == [1, 1]
    assert traces[0] != traces[1]


def secrets(stack: Stack) -> dict[str, str]:
    """What no log may hold, by what it is."""
    password = re.fullmatch(r"amqp://[^:]+:([^@]+)@.*", stack.settings["RABBITMQ_URL"])
    assert password
    return {
        "the webhook secret": stack.settings["WEBHOOK_SECRET"],
        "the S3 secret key": stack.settings["AWS_SECRET_ACCESS_KEY"],
        "the broker's password": password[1],
    }


def told(said: str, kept: dict[str, str]) -> list[str]:
    return [what for what, secret in kept.items() if secret in said]


async def test_no_log_of_the_whole_stack_holds_a_secret_or_a_webhooks_signature(
    stack: Stack, sori: Sori, analysis_server: AnalysisServer
) -> None:
    kept = secrets(stack)
    for behaviour in ("normal", "fail", "http-400", "wrong-signature", "drops-connection-once", "huge-result"):
        token_id = new_token(behaviour)
        job_id = await sori.job(RECORDING, token_id)
        request = await analysis_server.request_for(token_id)
        kept[f"the signature of a job that was to be {behaviour}"] = request.webhook_url.rsplit("signature=", 1)[1]
        if behaviour == "wrong-signature":
            await analysis_server.webhook_of(request)
        else:
            await sori.ended(job_id)
    refused = await sori.client.post(f"{sori.webhook_url(job_id)}0", content=b"{}")
    assert refused.status_code == 401
    logs = sorted((stack.home / "logs").glob("*.log"))
    assert {f"{name}-{replica}.log" for name in topology.SERVICES for replica in REPLICAS} <= {log.name for log in logs}
    assert "edge.log" in {log.name for log in logs}
    leaks = {log.name: told(log.read_text(encoding="utf-8", errors="replace"), kept) for log in logs}
    assert not {name: what for name, what in leaks.items() if what}
