"""The analysis server as a program: real S3 in front of it, a real webhook behind it, its processes and its end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.analysis_program import (
    BUCKET,
    LIMIT_S,
    Program,
    Receiver,
    Store,
    is_so,
    running,
    running_receiver,
    running_store,
    until,
)
from tests.support.recordings import speech, wav

SENTENCE = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with running_store(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
async def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    async with running(store, tmp_path_factory.mktemp("server"), WEBHOOK_ATTEMPTS="3") as made:
        yield made


async def test_a_recording_comes_back_as_its_analysis(store: Store, server: Program, receiver: Receiver) -> None:
    audio = store.put("audio/한 글?#%.wav", speech(SENTENCE, voice="en-us"))
    script = {"script_id": 7, "start_seconds": 0, "end_seconds": 2.5, "script": SENTENCE, "translation": "여우"}
    answer = await server.analyse(
        audio, receiver.address("/hook?a=1&signature=s%20x"), scripts=json.dumps([script]), s3_pitch_url=""
    )
    assert answer.status_code == 200
    assert answer.json().keys() == {"job_id", "status"}
    assert answer.json()["status"] == "processing"
    target, body, headers = await receiver.call()
    assert target == "/hook?a=1&signature=s%20x"
    assert headers["content-type"] == "application/json"
    result = body.pop("analysis_results")
    assert body == {
        "job_id": answer.json()["job_id"],
        "status": "completed",
        "video_id": "token-1",
        "s3_audio_url": audio,
    }
    assert [word["word"] for word in result["words"]] == SENTENCE.rstrip(".").split()
    assert result["warnings"] == []
    assert receiver.received.empty()


@pytest.mark.parametrize(
    "failing",
    [
        ("text.wav", b"not a recording", "This file cannot be read as audio. Please record again in another format."),
        ("missing.wav", None, "There is no recording at the given S3 address."),
    ],
)
async def test_a_job_that_fails_says_why_in_a_sentence(
    store: Store, server: Program, receiver: Receiver, failing: tuple[str, bytes | None, str]
) -> None:
    key, content, sentence = failing
    audio = f"s3://{BUCKET}/{key}" if content is None else store.put(key, content)
    accepted = await server.analyse(audio, receiver.address("/hook"))
    assert await receiver.outcome() == {"job_id": accepted.json()["job_id"], "status": "failed", "error": sentence}


async def test_a_webhook_in_trouble_is_called_again(store: Store, server: Program, receiver: Receiver) -> None:
    receiver.statuses["/flaky"] = [503, 429]
    await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/flaky"))
    bodies = [await receiver.outcome() for _ in range(3)]
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0]["status"] == "completed"


async def test_a_webhook_that_refuses_is_not_called_again(store: Store, server: Program, receiver: Receiver) -> None:
    receiver.statuses["/refusing"] = [401]
    accepted = await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/refusing"))
    await receiver.call()
    (given_up,) = await server.logged("webhook-given-up")
    assert given_up["job_id"] == accepted.json()["job_id"]
    assert given_up["reason"] == "status 401"
    assert receiver.received.empty()


async def test_the_trace_goes_on_in_the_webhook_and_in_the_log(
    store: Store, server: Program, receiver: Receiver
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    form = {
        "s3_audio_url": store.put("a.wav", speech(SENTENCE)),
        "webhook_url": receiver.address("/t"),
        "video_id": "v",
    }
    header = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    async with httpx.AsyncClient() as client:
        accepted = await client.post(f"{server.url}/analyze-voice", data=form, headers=header)
    assert (await receiver.call())[2]["traceparent"] == header["traceparent"]
    mine = [line for line in server.lines() if line.get("job_id") == accepted.json()["job_id"]]
    assert trace in {line.get("trace_id") for line in mine}


async def test_every_log_line_is_json_and_none_has_the_webhooks_query(
    store: Store, server: Program, receiver: Receiver
) -> None:
    receiver.statuses["/logged"] = [500, 500, 500]
    secret = "signature=0123456789abcdef"
    await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address(f"/logged?{secret}"))
    for _ in range(3):
        await receiver.call()
    await until(lambda: is_so(any(line.get("reason") == "status 500" for line in server.lines())))
    assert secret not in server.log.read_text()
    for line in server.lines():
        assert list(line)[:4] == ["time", "level", "service", "event"]
        assert line["service"] == "analysis-server"


async def test_health_says_what_is_up(server: Program) -> None:
    ready = await server.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"storage": "up", "workers": "up"}
    assert (await server.get("/health")).json()["jobs_in_hand"] == 0
    assert "/analyze-voice" in (await server.get("/openapi.json")).json()["paths"]


async def test_one_job_at_a_time_per_worker_then_a_queue_and_beyond_it_busy_and_when_to_come_back(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    audio, webhooks = store.put("a.wav", speech(SENTENCE)), receiver.addresses("/gated", 6)
    async with running(store, tmp_path, WORKERS="2", MAX_JOBS="5") as server:
        workers = server.workers()
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()
        for webhook in webhooks[:5]:
            assert (await server.analyse(audio, webhook)).status_code == 200
        refused = await server.analyse(audio, webhooks[5])
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert int(refused.headers["retry-after"]) > 0
        # Two are with the workers and the next one is at hand; the others wait, and cost a place in the queue alone.
        assert len(await server.logged("recording-fetched", times=3)) == 3
        for worker in workers:
            worker.resume()
        assert [(await receiver.outcome())["status"] for _ in range(5)] == ["completed"] * 5
        assert server.workers() == workers
        receiver.gate.set()
        await until(lambda: _took(server, audio, webhooks[5]))


async def _took(server: Program, audio: str, webhook: str) -> bool:
    return (await server.analyse(audio, webhook)).status_code == 200


async def test_a_worker_that_is_killed_costs_nobody_his_result(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        audio, webhooks = store.put("a.wav", speech(SENTENCE)), receiver.addresses("/hook", 3)
        for worker in server.workers():
            worker.suspend()
        for webhook in webhooks[:2]:
            await server.analyse(audio, webhook)
        await server.logged("recording-fetched", times=2)
        killed, other = server.workers()
        killed.kill()
        other.resume()
        outcomes = [await receiver.outcome() for _ in range(2)]
        assert [outcome["status"] for outcome in outcomes] == ["completed", "completed"]
        assert len(await server.logged("a child process was lost")) == 1
        await server.analyse(audio, webhooks[2])
        assert (await receiver.outcome())["status"] == "completed"


async def test_a_recording_that_always_kills_its_worker_fails_alone(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2", MAX_ANALYSIS_SECONDS="1") as server:
        webhooks = receiver.addresses("/hook", 4)
        hopeless = await server.analyse(store.put("long.wav", wav(1500, 5, rate=8000)), webhooks[3])
        fine = [await server.analyse(store.put("a.wav", speech(SENTENCE)), webhook) for webhook in webhooks[:3]]
        outcomes = {outcome["job_id"]: outcome for outcome in [await receiver.outcome() for _ in range(4)]}
        assert outcomes[hopeless.json()["job_id"]]["status"] == "failed"
        assert "takes more time or memory" in outcomes[hopeless.json()["job_id"]]["error"]
        assert [outcomes[job.json()["job_id"]]["status"] for job in fine] == ["completed"] * 3


async def test_sigterm_lets_the_work_in_hand_finish_and_exits_0(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path) as server:
        (worker,) = server.workers()
        worker.suspend()
        audio = store.put("a.wav", speech(SENTENCE))
        for webhook in receiver.addresses("/hook", 3):
            await server.analyse(audio, webhook)
        server.process.send_signal(signal.SIGTERM)
        await server.logged("jobs-draining")
        worker.resume()
        assert [(await receiver.outcome())["status"] for _ in range(3)] == ["completed"] * 3
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0
        assert not worker.is_running()
        assert server.lines()[-1]["event"] == "stopped"


async def test_what_cannot_finish_in_time_is_gone_on_with_at_the_next_start(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path / "first", STOP_SECONDS="0") as server:
        server.workers()[0].suspend()
        accepted = await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/hook"))
        await server.logged("recording-fetched")
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0
        assert "job-left" in [line["event"] for line in server.lines()]
        assert receiver.received.empty()
    async with running(store, tmp_path / "second", PORT=server.port):
        outcome = await receiver.outcome()
        assert (outcome["job_id"], outcome["status"]) == (accepted.json()["job_id"], "completed")


async def test_a_result_whose_webhook_is_down_is_offered_once_more_at_the_end(
    store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses["/down"] = [503] * 6
    async with running(store, tmp_path, STOP_SECONDS="0", WEBHOOK_ATTEMPTS="20") as server:
        await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/down"))
        first = await receiver.outcome()
        server.process.send_signal(signal.SIGTERM)
        assert await receiver.outcome() == first
        assert first["status"] == "completed"
        assert await asyncio.to_thread(server.process.wait, LIMIT_S) == 0


async def test_a_repeat_joins_the_analysis_under_way_at_any_server_and_after_a_kill(
    receiver: Receiver, tmp_path: Path
) -> None:
    async with (
        running_store(tmp_path / "s3") as store,  # without what servers of other tests have left
        running(store, tmp_path / "first") as first,
        running(store, tmp_path / "other") as other,
    ):
        audio, webhook = store.put("a.wav", speech(SENTENCE)), receiver.address("/hook?job_id=1&signature=s")
        first.workers()[0].suspend()
        accepted = await first.analyse(audio, webhook)
        for server in (first, other, first):
            repeated = await server.analyse(audio, webhook)
            assert (repeated.status_code, repeated.json()) == (200, accepted.json())
        assert (await other.get("/health")).json()["jobs_in_hand"] == 0
        first.process.kill()
        await asyncio.to_thread(first.process.wait)
        async with running(store, tmp_path / "again", PORT=first.port) as again:
            outcome = await receiver.outcome()
            assert (outcome["job_id"], outcome["status"]) == (accepted.json()["job_id"], "completed")
            await again.until_nothing_is_kept(store)
            assert receiver.received.empty()
            # What has ended is not under way: the same request is a new one.
            anew = await again.analyse(audio, webhook)
            assert anew.json()["job_id"] != accepted.json()["job_id"]
            assert (await receiver.outcome())["job_id"] == anew.json()["job_id"]


async def test_a_killed_server_leaves_no_worker_behind(store: Store, tmp_path: Path) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        workers = server.workers()
        assert len(workers) == 2
        server.process.kill()
        await until(lambda: is_so(not any(worker.is_running() for worker in workers)))


async def test_a_server_whose_store_is_gone_says_so_and_takes_nothing_on(receiver: Receiver, tmp_path: Path) -> None:
    async with running_store(tmp_path / "s3") as store, running(store, tmp_path / "server") as server:
        audio = store.put("a.wav", speech(SENTENCE))
        store.process.kill()
        ready = await server.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["checks"]["storage"] == "down"
        assert (await server.get("/health/live")).status_code == 200
        refused = await server.analyse(audio, receiver.address("/hook"))
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_away")
        assert int(refused.headers["retry-after"]) > 0
        assert (await server.get("/health")).json()["jobs_in_hand"] == 0


async def test_a_recording_that_cannot_be_fetched_for_long_fails_with_the_reason(
    receiver: Receiver, tmp_path: Path
) -> None:
    settings = {"STORAGE_SECONDS": "1", "WORKERS": "1"}
    async with running_store(tmp_path / "s3") as store, running(store, tmp_path / "server", **settings) as server:
        audio = store.put("a.wav", speech(SENTENCE))
        (worker,) = server.workers()
        worker.suspend()
        for webhook in receiver.addresses("/hook", 3):
            assert (await server.analyse(audio, webhook)).status_code == 200
        await server.logged("recording-fetched", times=2)  # the third one waits for its turn
        store.process.kill()
        worker.resume()
        outcomes = [await receiver.outcome() for _ in range(3)]
        assert [outcome["status"] for outcome in outcomes] == ["completed", "completed", "failed"]
        assert outcomes[2]["error"] == "The storage of the recording could not be reached."


async def test_a_file_over_the_limit_is_not_fetched(store: Store, receiver: Receiver, tmp_path: Path) -> None:
    async with running(store, tmp_path, MAX_AUDIO_BYTES="1000", MAX_AUDIO_SECONDS="1") as server:
        await server.analyse(store.put("a.wav", speech(SENTENCE)), receiver.address("/hook"))
        assert (await receiver.outcome())["error"] == "The recording's file is larger than 1000 bytes."


def test_a_missing_setting_stops_the_server_at_start_with_its_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "analysis_server"],
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "S3_BUCKET_NAME is not set" in done.stderr
    assert "Traceback" not in done.stderr
