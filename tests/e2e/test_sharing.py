"""Share links through the edge: who has the address sees the job until it is purged; nothing logs the address."""

from local_stack.stack import Stack
from tests.support.answers import assert_problem
from tests.support.recordings import wav
from tests.support.sori import Sori
from tests.support.waiting import until

CONTENT = wav(0.7, seed=4711)


async def test_a_shared_recording_is_heard_until_its_job_is_purged(sori: Sori, stack: Stack) -> None:
    state = await sori.completed(CONTENT)
    job_id = state["job_id"]
    answer = await sori.client.post(f"{sori.url}/jobs/{job_id}/links", json={"right": "audio"})
    assert answer.status_code == 201
    address = answer.json()["url"]
    shown = (await sori.client.get(sori.url + address)).json()
    assert (shown["status"], shown["result"]) == ("completed", state["result"])
    assert not {"job_id", "s3_url", "metadata"} & shown.keys()
    audio = await sori.client.get(sori.url + shown["audio_url"], headers={"Range": "bytes=0-9"})
    assert (audio.status_code, audio.content) == (206, CONTENT[:10])
    # However it is written, the edge logs no secret.
    odd = address.replace("/shared/", "//%73hared%2F")
    await sori.client.get(sori.url + odd)
    assert (await sori.client.delete(f"{sori.url}/jobs/{job_id}?purge=true")).status_code == 202
    for gone in (address, shown["audio_url"]):
        assert_problem(await sori.client.get(sori.url + gone), 404, "link_not_found")
    secret = address.removeprefix("/shared/")

    async def logged() -> bool:
        return stack.log("edge").read_text().count('"path":"/shared/…"') >= 5

    await until(logged, "five lines of shared addresses in the edge's log")
    for part in ("edge", "gateway-1", "gateway-2"):
        assert secret not in stack.log(part).read_text()
