"""The webhook's secret is changed while analyses are under way: addresses under the one before are taken as well."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from local_stack.stack import Stack
from tests.contract.service_process import SERVICES, ServiceProcess
from tests.support.analysis_server import AnalysisServer
from tests.support.answers import assert_problem
from tests.support.recordings import wav
from tests.support.sori import Sori, new_token
from tests.support.waiting import until

(GATEWAY,) = (service for service in SERVICES if service.name == "gateway")
NEW = "another secret that is long enough"


@pytest.fixture
async def gateway(stack: Stack, sori: Sori, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    """A gateway that was given a new secret; the stack's own is the one before."""
    settings = {
        **stack.settings,
        "WEBHOOK_SECRET": NEW,
        "WEBHOOK_SECRET_PREVIOUS": stack.settings["WEBHOOK_SECRET"],
    }
    async with ServiceProcess.running(GATEWAY, settings, tmp_path / "log") as process:
        for door in process.doors.values():
            await door.open()

        async def up() -> bool:
            answer = await process.health(sori.client)
            return answer is not None and answer.status_code == 200

        await until(up, "a gateway that is ready", limit_seconds=60)
        yield process


async def test_addresses_under_either_secret_are_taken_and_no_other(
    stack: Stack, sori: Sori, gateway: ServiceProcess, analysis_server: AnalysisServer
) -> None:
    secrets = {"old": stack.settings["WEBHOOK_SECRET"], "new": NEW}
    for seed, (name, secret) in enumerate(secrets.items()):
        token_id = new_token("never-calls-back")
        job_id = await sori.job(wav(0.3, seed=700 + seed), token_id)
        await analysis_server.request_for(token_id)
        body = {"status": "success", "result": {"secret": name}}
        wrong = await Sori(sori.client, gateway.url, "a secret that was never given").webhook(job_id, body)
        assert_problem(wrong, 401, "signature_invalid")
        assert (await Sori(sori.client, gateway.url, secret).webhook(job_id, body)).status_code == 200
        assert (await sori.ended(job_id))["result"] == {"secret": name}
    beyond = await Sori(sori.client, sori.url, NEW).webhook(job_id, {"status": "failed"})
    assert_problem(beyond, 401, "signature_invalid")
