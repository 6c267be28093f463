"""The commands that the seed's README shows, run as written with the real curl."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from local_stack.stack import Stack
from tests.support.recordings import speech
from tests.support.sori import RECORDING, Sori, new_token

MESSAGES = {
    10: "업로드 시작",
    40: "S3 업로드 중...",
    70: "분석 서버 요청 중...",
    90: "분석 중... 결과 대기",
    100: "분석 완료",
}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seed") / "test_audio.wav"
    path.write_bytes(speech("Can you hear me? This is how the readme sends it."))
    return path


async def curl(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def upload(stack: Stack, token_id: str, recording: Path) -> dict[str, Any]:
    url = f"{stack.url}/tokens/{token_id}/upload-audio"
    header = "Content-Type: multipart/form-data"
    answer: dict[str, Any] = json.loads(await curl("-X", "POST", url, "-H", header, "-F", f"file=@{recording}"))
    return answer


async def test_docs_show_every_public_call_without_help_from_other_hosts(stack: Stack) -> None:
    page = await curl(f"{stack.url}/docs")
    assert "swagger-ui" in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+"', page)
    paths = json.loads(await curl(f"{stack.url}/openapi.json"))["paths"]
    assert paths.keys() >= {
        "/tokens/{token_id}/upload-audio",
        "/tokens/analysis-result/{job_id}",
        "/tokens/analysis-progress/{job_id}",
        "/tokens/webhook/analysis-complete",
        "/webhook/analysis-complete",
        "/health",
    }


async def test_an_upload_is_answered_with_the_seeds_fields(stack: Stack, sori: Sori, recording: Path) -> None:
    answer = await upload(stack, "test-token", recording)
    assert answer["message"] == "업로드 완료, 백그라운드에서 처리됩니다."
    assert answer["status"] == "processing"
    assert UUID.fullmatch(answer["job_id"])
    assert (await sori.ended(answer["job_id"]))["status"] == "completed"


async def test_an_upload_is_answered_202_with_the_address_of_its_result(stack: Stack, sori: Sori) -> None:
    answer = await sori.upload()
    assert answer.status_code == 202
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == answer.json()["result_url"] == f"/tokens/analysis-result/{job_id}"
    assert answer.json()["progress_url"] == f"/tokens/analysis-progress/{job_id}"
    assert (await sori.client.get(stack.url + answer.headers["location"])).json()["job_id"] == job_id


async def test_a_result_is_read_with_the_seeds_fields(stack: Stack, sori: Sori, recording: Path) -> None:
    token_id = new_token()
    job_id = (await upload(stack, token_id, recording))["job_id"]
    await sori.ended(job_id)
    state = json.loads(await curl(f"{stack.url}/tokens/analysis-result/{job_id}"))
    assert state.keys() >= {"job_id", "stage", "s3_url", "created_at", "updated_at"}
    seeds_own = {name: state[name] for name in ("status", "token_id", "progress", "message", "result")}
    assert seeds_own == {
        "status": "completed",
        "token_id": token_id,
        "progress": 100,
        "message": "분석 완료",
        "result": {"video_id": token_id, "s3_audio_url": state["s3_url"], "score": 87.5},
    }


async def test_a_waiting_job_is_read_as_the_seed_shows_it(stack: Stack, sori: Sori, recording: Path) -> None:
    job_id = (await upload(stack, new_token("slow"), recording))["job_id"]
    await sori.reached(job_id, 90)
    state = json.loads(await curl(f"{stack.url}/tokens/analysis-result/{job_id}"))
    assert (state["status"], state["progress"], state["message"]) == ("processing", 90, "분석 중... 결과 대기")
    assert state["s3_url"] == f"s3://{stack.settings['S3_BUCKET_NAME']}/audio/{job_id}.wav"


async def test_progress_is_streamed_with_the_seeds_values_and_messages(stack: Stack, sori: Sori) -> None:
    jobs = await asyncio.gather(*(sori.job(RECORDING, new_token("slow")) for _ in range(4)))
    url = f"{stack.url}/tokens/analysis-progress"
    streams = await asyncio.gather(*(curl("-N", "-H", "Last-Event-ID: 0", f"{url}/{job_id}") for job_id in jobs))
    seen: set[int] = set()
    for stream in streams:
        states = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
        values = [state["progress"] for state in states]
        assert values == sorted(set(values)), "progress falls or stands still"
        assert (values[0], values[-1]) == (10, 100)
        assert all(state["message"] == MESSAGES[state["progress"]] for state in states)
        assert [state["status"] for state in states] == ["processing"] * (len(states) - 1) + ["completed"]
        assert "result" in states[-1]
        seen |= set(values)
    # An event may overtake another, and then a step is skipped: not in all of them.
    assert seen == set(MESSAGES)


async def test_a_stream_without_last_event_id_ends_by_itself(stack: Stack, sori: Sori) -> None:
    job_id = await sori.job(token_id=new_token("slow"))
    stream = await curl("-N", f"{stack.url}/tokens/analysis-progress/{job_id}")
    assert '"status":"completed"' in stream.strip().splitlines()[-1]
