"""The whole stack at a store that is not AWS: it wants Content-MD5, knows no checksums, and takes no batches."""

from collections.abc import Iterator

import httpx
import pytest

from local_stack.stack import Stack
from tests.conftest import SETTINGS
from tests.support.analysis_server import AnalysisServer
from tests.support.sori import Sori, new_token
from tests.support.stacks import running_stack
from tests.support.strict_s3 import StrictS3
from tests.support.waiting import until, until_true

REPLICAS = {"uploader": ("uploader-1", "uploader-2"), "gateway": ("gateway-1", "gateway-2")}


@pytest.fixture(scope="module")
def store() -> Iterator[StrictS3]:
    strict = StrictS3(wants_content_md5=True, knows_checksums=False, knows_expect=False, says_what_was_not_there=True)
    with strict.running():
        yield strict


@pytest.fixture(scope="module")
def stack(store: StrictS3, analysis_server: AnalysisServer) -> Iterator[Stack]:
    given = {**SETTINGS, **store.settings, "TARGET_SERVER_URL": analysis_server.url, "REDRIVE_AFTER": "1"}
    with running_stack(given) as running:
        yield running


@pytest.fixture(scope="module")
def sori(stack: Stack, client: httpx.AsyncClient) -> Sori:
    return Sori(client, stack.url, stack.settings["WEBHOOK_SECRET"])


@pytest.fixture(params=[None, (501, "NotImplemented")], ids=["batches", "no batches"])
def any_store(request: pytest.FixtureRequest, store: StrictS3) -> StrictS3:
    store.batch_refusal = request.param
    return store


def keys(store: StrictS3, job_id: str) -> set[str]:
    return {key for key in store.objects.copy() if job_id in key}


async def purge(sori: Sori, job_id: str) -> None:
    answer = await sori.client.delete(f"{sori.url}/jobs/{job_id}?purge=true")
    assert answer.status_code == 202
    assert (await sori.result(job_id)).status_code == 404


async def warnings(sori: Sori, stack: Stack) -> list[str]:
    """What the gateways warn of."""
    found: list[str] = []
    for replica in REPLICAS["gateway"]:
        answer = await sori.client.get(f"{stack.parts[replica].address}/health")
        assert answer.status_code == 200, answer.text
        found += answer.json()["warnings"]
    return found


async def test_a_recording_completes_and_leaves_nothing_when_it_is_purged(any_store: StrictS3, sori: Sori) -> None:
    job_id = (await sori.completed())["job_id"]
    await until_true(lambda: keys(any_store, job_id) == {f"audio/{job_id}.wav"}, "an empty inbox")
    audio = await sori.client.get(f"{sori.url}/jobs/{job_id}/audio")
    assert audio.content == any_store.objects[f"audio/{job_id}.wav"].content
    retried = await sori.client.post(f"{sori.url}/jobs/{job_id}/retry")
    again = str(retried.json()["job_id"])
    assert (await sori.ended(again))["status"] == "completed"
    for purged in (job_id, again):
        await purge(sori, purged)
        await until_true(lambda purged=purged: not keys(any_store, purged), f"nothing of {purged}")  # type: ignore[misc] # mypy cannot infer a lambda with a default


async def test_a_purge_that_the_store_refuses_is_told_in_health_and_done_once_it_may_be(
    any_store: StrictS3, sori: Sori, stack: Stack
) -> None:
    job_id = await sori.job(token_id=new_token("never-calls-back"))
    await sori.reached(job_id, 90)
    await until_true(lambda: keys(any_store, job_id) == {f"audio/{job_id}.wav"}, "an empty inbox")
    any_store.deletes = False
    try:
        await purge(sori, job_id)

        async def warned() -> bool:
            return any("the purge of 1 job is not done yet" in warning for warning in await warnings(sori, stack))

        await until(warned, "a warning of the gateway")
        edge = (await sori.client.get(f"{sori.url}/health")).json()
        assert any("purge" in warning for warning in edge["warnings"])
        assert keys(any_store, job_id)
    finally:
        any_store.deletes = True
    await until_true(lambda: not keys(any_store, job_id), "nothing of the recording", limit_seconds=90)

    async def healed() -> bool:
        return not any("purge" in warning for warning in await warnings(sori, stack))

    await until(healed, "no warning of a purge any more")
