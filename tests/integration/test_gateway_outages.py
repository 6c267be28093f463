"""Uploads and other calls while a back end of the gateway is away, or hangs: refused at once, or safe."""

import asyncio
import hashlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from local_stack.stack import Stack
from tests.contract.service_process import BACK_ENDS, SERVICES, ServiceProcess
from tests.support.answers import assert_problem
from tests.support.proxy import Proxies, Proxy
from tests.support.raw_http import BOUNDARY, part, raw_connection
from tests.support.recordings import wav
from tests.support.sori import RECORDING, Sori, new_token
from tests.support.waiting import until

(GATEWAY,) = (service for service in SERVICES if service.name == "gateway")
AT_ONCE_SECONDS = 1.5
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
HOW = ("refuse", "swallow")
"""What an outage is like: connections are reset and refused, or they are taken and nothing comes back."""


class Outages:
    """A gateway of its own, each of whose back ends is behind a proxy."""

    def __init__(self, process: ServiceProcess, proxies: dict[str, Proxy], sori: Sori) -> None:
        self.process = process
        self.proxies = proxies
        self.sori = sori

    async def ready(self) -> None:
        """Make the network good, and wait until the gateway says that all is up."""
        for proxy in self.proxies.values():
            proxy.heal()

        async def up() -> bool:
            answer = await self.process.health(self.sori.client)
            return answer is not None and answer.status_code == 200

        await until(up, "a gateway that is ready", limit_seconds=60)

    async def answering(self, status: int) -> httpx.Response:
        """Wait until an upload is answered with this."""

        async def look() -> httpx.Response | None:
            answer = await self.sori.upload()
            return answer if answer.status_code == status else None

        return await until(look, f"an upload that gets {status}")


@pytest.fixture
async def outages(stack: Stack, sori: Sori, tmp_path: Path) -> AsyncIterator[Outages]:
    """A gateway whose back ends are all up."""
    async with AsyncExitStack() as opened:
        proxies = opened.enter_context(Proxies.running())
        ways: dict[str, Proxy] = {}
        settings = dict(stack.settings)
        for name, setting in BACK_ENDS.items():
            ways[name] = proxies.to(name, urlsplit(settings[setting]).port or 0)
            settings[setting] = ways[name].through(settings[setting])
        process = await opened.enter_async_context(ServiceProcess.running(GATEWAY, settings, tmp_path / "log"))
        for door in process.doors.values():
            await door.open()
        away = Outages(process, ways, Sori(sori.client, process.url, settings["WEBHOOK_SECRET"]))
        await away.ready()
        yield away


async def timed(answer: Awaitable[Any]) -> tuple[Any, float]:
    """What came, and after how many seconds."""
    began = time.monotonic()
    came = await answer
    return came, time.monotonic() - began


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["s3", "mongodb"])
async def test_an_upload_is_refused_at_once_and_before_it_is_read(outages: Outages, name: str, how: str) -> None:
    getattr(outages.proxies[name], how)()
    try:
        # What was seen to work a second ago is not asked: the first upload may have to find out by itself.
        await outages.answering(503)
        uploads: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("POST", f"/tokens/{new_token()}/upload-audio", {}),
            ("POST", f"/tokens/{new_token()}/upload-audio", {"Idempotency-Key": str(uuid.uuid4())}),
            ("PUT", "/tokens/1/reference-audio", {}),
        )
        for method, path, given in uploads:
            async with raw_connection(outages.sori.url) as upload:
                # Not a byte of the body is sent.
                await upload.begin(path, {**FORM, "Content-Length": "100000", **given}, method)
                answer, seconds = await timed(upload.answer())
            assert_problem(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert seconds < AT_ONCE_SECONDS
        together = await asyncio.gather(*(timed(outages.sori.upload()) for _ in range(20)))
        assert {answer.status_code for answer, _ in together} == {503}
        assert max(seconds for _, seconds in together) < AT_ONCE_SECONDS
    finally:
        await outages.ready()
    answer = await outages.answering(202)
    assert (await outages.sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("how", HOW)
async def test_without_rabbitmq_everything_is_accepted_at_once_and_done_later(
    outages: Outages, sori: Sori, how: str
) -> None:
    """Any gateway tells what this one could not; here the stack's own does."""
    old = (await sori.completed())["job_id"]
    purged = (await sori.completed())["job_id"]
    answered, cancelled = [await sori.job(token_id=new_token("never-calls-back")) for _ in range(2)]
    for job_id in (answered, cancelled):
        await sori.reached(job_id, 90)
    getattr(outages.proxies["rabbitmq"], how)()
    try:

        async def noticed() -> bool:
            answer = await outages.process.health(sori.client)
            return answer is not None and answer.json()["checks"]["rabbitmq"] == "down"

        await until(noticed, "the outage is noticed", limit_seconds=60)
        url = outages.sori.url
        for call, status in (
            (sori.client.delete(f"{url}/jobs/{cancelled}"), 202),
            (sori.client.delete(f"{url}/jobs/{purged}?purge=true"), 202),
            (outages.sori.webhook(answered, {"status": "success", "result": {"score": 3}}), 200),
        ):
            answer, seconds = await timed(call)
            assert answer.status_code == status
            assert seconds < AT_ONCE_SECONDS
        assert_problem(await sori.client.get(f"{url}/jobs/{purged}"), 404, "job_not_found")
        accepted = []
        for call in (outages.sori.upload(), sori.client.post(f"{url}/jobs/{old}/retry")):
            answer, seconds = await timed(call)
            assert answer.status_code == 202
            assert seconds < AT_ONCE_SECONDS
            accepted.append(answer.json()["job_id"])
    finally:
        await outages.ready()
    for job_id in accepted:
        assert (await sori.ended(job_id, limit_seconds=60))["status"] == "completed"
    assert (await sori.ended(answered, limit_seconds=60))["result"] == {"score": 3}
    assert (await sori.ended(cancelled, limit_seconds=60))["status"] == "cancelled"


@pytest.mark.parametrize("how", HOW)
async def test_without_mongodb_a_webhook_is_safe_all_the_same(outages: Outages, sori: Sori, how: str) -> None:
    """It comes once: RabbitMQ takes it, and the bridge, whose MongoDB is there, ends the job."""
    answered = await sori.job(wav(0.3, seed=510 + HOW.index(how)), new_token("never-calls-back"))
    await sori.reached(answered, 90)
    getattr(outages.proxies["mongodb"], how)()
    try:
        await until(lambda: _refused(outages), "the outage is noticed")
        call = outages.sori.webhook(answered, {"status": "success", "result": {"score": 4}})
        answer, seconds = await timed(call)
        assert (answer.status_code, seconds < AT_ONCE_SECONDS) == (200, True)
        assert (await sori.ended(answered))["result"] == {"score": 4}
        unknown = await outages.sori.webhook(str(uuid.uuid4()), {"status": "success", "result": {}})
        assert unknown.status_code == 200, "nobody can tell now; the bridge keeps it for a recording that never comes"
        outages.proxies["rabbitmq"].refuse()
        neither = await outages.sori.webhook(answered, {"status": "success", "result": {"score": 5}})
        assert_problem(neither, 503, "unavailable")
    finally:
        await outages.ready()


async def test_an_outage_in_the_middle_of_an_upload_makes_no_job_that_is_lost(outages: Outages, jobs: Any) -> None:
    token_id = new_token()
    body = part(RECORDING) + f"--{BOUNDARY}--\r\n".encode()
    key = {"Idempotency-Key": str(uuid.uuid4())}
    hashed = hashlib.sha256(key["Idempotency-Key"].encode()).hexdigest()
    async with raw_connection(outages.sori.url) as upload:
        await upload.begin_upload(token_id, {"Content-Length": str(len(body)), **key})
        await upload.send(body[:3000])

        async def under_way() -> bool:
            return bool(await jobs.database["idempotency_keys"].count_documents({"_id": hashed}))

        await until(under_way, "the upload under way")
        outages.proxies["mongodb"].refuse()
        await upload.send(body[3000:])
        assert_problem(await upload.answer(), 503, "unavailable")
    await outages.ready()

    async def accepted() -> httpx.Response | None:
        answer = await outages.sori.upload(RECORDING, token_id, headers=key)
        return answer if answer.status_code == 202 else None

    answer = await until(accepted, "the same upload again", limit_seconds=40)
    assert (await outages.sori.ended(answer.json()["job_id"]))["status"] == "completed"


@pytest.mark.parametrize("how", HOW)
async def test_without_mongodb_every_call_of_the_catalogue_is_refused_at_once(outages: Outages, how: str) -> None:
    ask = outages.sori.client.request
    token = {"token_name": "a", "actor_name": "b", "start_time": 0, "end_time": 1}
    script = {"token_id": 1, "start_time": 0, "end_time": 1, "script": "a"}
    calls: list[tuple[str, str, object]] = [("GET", "/tokens/1", None), ("POST", "/tokens/1/view", None)]
    for kind, body in (("tokens", token), ("scripts", script), ("actors", {"name": "a"})):
        calls += [("POST", f"/{kind}", body), ("GET", f"/{kind}", None), ("PUT", f"/{kind}/1", body)]
        calls += [("DELETE", f"/{kind}/1", None)]
    getattr(outages.proxies["mongodb"], how)()
    try:
        # What was seen to work a second ago is not asked: the first call may have to find out by itself.
        await until(lambda: _refused(outages), "the outage is noticed")
        asked = (timed(ask(method, outages.sori.url + path, json=given)) for method, path, given in calls)
        for answer, seconds in await asyncio.gather(*asked):
            assert_problem(answer, 503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert seconds < AT_ONCE_SECONDS, answer.request
    finally:
        await outages.ready()
    answer = await ask("POST", f"{outages.sori.url}/tokens/", json=token)
    assert answer.status_code == 201


async def _refused(outages: Outages) -> bool:
    return (await outages.sori.client.get(f"{outages.sori.url}/tokens")).status_code == 503
