"""What the analysis server does with references: read, understood once, kept in S3; and whatever is wrong with them."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from analysis_server.references import Known
from tests.support.analysis_program import (
    BUCKET,
    Program,
    Receiver,
    Store,
    running,
    running_receiver,
    running_store,
)
from tests.support.recordings import speech, wav

SENTENCE = "The quick brown fox jumps over the lazy dog."
KOREAN = "아버지가 방에 들어가신다."
TEXTGRID = b"""File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
1
"IntervalTier"
"words"
0
1
2
0
0.4
"The"
0.4
1
"quick"
"""
PITCH = json.dumps([{"time": at / 100, "hz": 120 if at < 30 else None} for at in range(10, 40)]).encode()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s3")


@pytest.fixture(scope="module")
async def store(folder: Path) -> AsyncIterator[Store]:
    async with running_store(folder) as made:
        yield made


@pytest.fixture(scope="module")
async def server(store: Store, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Program]:
    async with running(store, tmp_path_factory.mktemp("server")) as made:
        yield made


def scripts(*texts: str) -> str:
    told = [
        {"script_id": at, "start_seconds": at, "end_seconds": at + 1, "script": text}
        for at, text in enumerate(texts, 1)
    ]
    return json.dumps(told)


class Case:
    """A recording and a reference of its own, for one test."""

    def __init__(self, store: Store) -> None:
        self.reference = f"references/{uuid4()}/a"
        self.store = store
        self.audio = store.put("recording.wav", speech(SENTENCE, voice="en-gb"))
        self.put(speech(SENTENCE, voice="en-us"))

    def put(self, content: bytes) -> None:
        self.store.put(self.reference, content)

    def kept(self) -> list[str]:
        assert self.store.keys(self.reference) == [self.reference], "nothing is written beside it"
        return self.store.keys(f"analysis/{self.reference}")

    async def asked(self, server: Program, receiver: Receiver, **more: str) -> str:
        form = {"s3_reference_url": f"s3://{BUCKET}/{self.reference}", "scripts": scripts(SENTENCE)} | more
        answer = await server.analyse(self.audio, receiver.address(f"/hook?{uuid4()}"), **form)
        return str(answer.json()["job_id"])

    async def result(self, server: Program, receiver: Receiver, **more: str) -> dict[str, Any]:
        job_id = await self.asked(server, receiver, **more)
        outcome = await receiver.outcome()
        assert (outcome["job_id"], outcome["status"]) == (job_id, "completed")
        result: dict[str, Any] = outcome["analysis_results"]
        return result

    def understood(self, server: Program) -> int:
        return sum(line["event"] == "reference-understood" and self.reference in line["key"] for line in server.lines())


@pytest.fixture
def case(store: Store) -> Case:
    return Case(store)


async def test_a_reference_is_understood_once_and_kept_apart_from_it(
    case: Case, store: Store, server: Program, receiver: Receiver
) -> None:
    first = await case.result(server, receiver)
    assert first["warnings"] == []
    (kept,) = case.kept()
    assert kept.startswith(f"analysis/{case.reference}.")
    assert await case.result(server, receiver) == first
    by_another_address = f"{store.url}/{BUCKET}/{case.reference}"
    assert await case.result(server, receiver, s3_reference_url=by_another_address) == first
    assert case.understood(server) == 1


async def test_every_replica_uses_what_one_has_kept(
    case: Case, store: Store, server: Program, receiver: Receiver, tmp_path: Path
) -> None:
    first = await case.result(server, receiver)
    async with running(store, tmp_path) as another:
        assert await case.result(another, receiver) == first
        assert case.understood(another) == 0


async def test_ten_jobs_at_once_need_one_understanding(
    case: Case, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        workers = server.workers()
        for worker in workers:
            worker.suspend()
        for _ in range(10):
            await case.asked(server, receiver)
        await server.logged("job-accepted", times=10)
        for worker in workers:
            worker.resume()
        outcomes = [await receiver.outcome() for _ in range(10)]
        assert [outcome["status"] for outcome in outcomes] == ["completed"] * 10
        assert case.understood(server) == 1


async def test_a_replaced_reference_and_other_scripts_are_understood_anew(
    case: Case, server: Program, receiver: Receiver
) -> None:
    await case.result(server, receiver)
    case.put(speech(SENTENCE, voice="en-gb"))
    await case.result(server, receiver)
    assert (case.understood(server), len(case.kept())) == (2, 2)
    await case.result(server, receiver, scripts=scripts("The quick brown fox.", "Jumps over the lazy dog."))
    assert (case.understood(server), len(case.kept())) == (3, 3)


@pytest.mark.parametrize(
    "damaged",
    [lambda _: b"", lambda _: b"{}\n", lambda whole: whole[:-1], lambda whole: whole[:-1] + b"\x01"],
    ids=["empty", "of another form", "cut off", "of other bytes"],
)
async def test_a_damaged_one_is_understood_anew_and_mended(
    case: Case, store: Store, server: Program, receiver: Receiver, damaged: Callable[[bytes], bytes]
) -> None:
    first = await case.result(server, receiver)
    (kept,) = case.kept()
    store.put(kept, damaged(store.get(kept)))
    assert await case.result(server, receiver) == first
    assert case.understood(server) == 2
    assert await case.result(server, receiver) == first
    assert case.understood(server) == 2


async def test_a_reference_that_cannot_be_kept_costs_nothing_but_time(
    case: Case, store: Store, server: Program, receiver: Receiver
) -> None:
    first = await case.result(server, receiver)
    (kept,) = case.kept()
    store.remove(kept)
    store.put(f"{kept}/in-the-way", b"")  # the tests' S3 server keeps objects as files: this makes a folder of the key
    assert await case.result(server, receiver) == first
    assert len(await server.logged("reference-not-kept")) == 1


def codes(result: dict[str, Any]) -> list[str]:
    assert all(warning["text"] for warning in result["warnings"])
    return [warning["code"] for warning in result["warnings"]]


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("reference_missing", f"s3://{BUCKET}/references/none"),
        ("reference_not_in_bucket", "s3://other/references/a"),
        ("reference_not_in_bucket", "https://example.com/a.wav"),
        ("reference_address_invalid", "references/a"),
        ("reference_not_audio", b"not a recording"),
        ("reference_audio_empty", b""),
        ("textgrid_missing", f"s3://{BUCKET}/references/none"),
        ("textgrid_address_invalid", "http://example.com/a.TextGrid"),
        ("textgrid_malformed", TEXTGRID[:-10]),
        ("textgrid_malformed", TEXTGRID.replace(b"\n1\n", b"\n60\n")),
        ("textgrid_too_large", b" " * 5_000_000),
        ("pitch_missing", f"s3://{BUCKET}/references/none"),
        ("pitch_malformed", PITCH[:-1]),
        ("pitch_without_voice", b"[]"),
    ],
    ids=range(14),
)
async def test_whatever_is_wrong_with_a_part_is_left_out_and_said(
    case: Case, server: Program, receiver: Receiver, code: str, address: str | bytes
) -> None:
    part = code.partition("_")[0]
    if isinstance(address, bytes):
        address = case.store.put(f"parts/{uuid4()}", address)
    assert code in codes(await case.result(server, receiver, **{f"s3_{part}_url": address}))


async def test_a_reference_in_a_language_that_the_model_does_not_know_completes(
    case: Case, server: Program, receiver: Receiver
) -> None:
    for _ in range(2):  # understood, and as it was kept
        found = codes(await case.result(server, receiver, scripts=scripts(KOREAN)))
        assert "script_language_unsupported" in found
    assert case.understood(server) == 1


async def test_a_textgrid_and_a_pitch_file_are_a_reference_without_its_sound(
    case: Case, store: Store, server: Program, receiver: Receiver
) -> None:
    parts = {"s3_textgrid_url": store.put("a.TextGrid", TEXTGRID), "s3_pitch_url": store.put("a.json", PITCH)}
    result = await case.result(server, receiver, s3_reference_url="", **parts)
    assert result["warnings"] == []
    assert (case.understood(server), case.kept()) == (0, [])


async def test_a_reference_over_the_limits_is_left_out(
    case: Case, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, MAX_AUDIO_SECONDS="5", MAX_AUDIO_BYTES="500000") as server:
        case.put(wav(20, 1, rate=8000))
        assert codes(await case.result(server, receiver)) == ["reference_audio_too_long"]
        case.put(wav(40, 1, rate=8000))
        assert codes(await case.result(server, receiver)) == ["reference_too_large"]


async def test_a_reference_that_kills_its_worker_costs_the_comparison_alone(
    case: Case, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, MAX_ANALYSIS_SECONDS="2") as server:
        case.put(wav(1500, 5, rate=8000))
        assert "reference_too_complex" in codes(await case.result(server, receiver))
        # It would be so again: that is remembered.
        assert len(case.kept()) == 1
        assert "reference_too_complex" in codes(await case.result(server, receiver))
        assert case.understood(server) == 1


async def test_jobs_that_wait_for_a_reference_keep_no_place_from_others(
    case: Case, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    async with running(store, tmp_path, WORKERS="2") as server:
        case.put(wav(900, 5, rate=8000))
        waiting = [await case.asked(server, receiver) for _ in range(6)]
        other = await server.analyse(case.audio, receiver.address("/hook"))
        first = await receiver.outcome()
        assert (first["job_id"], first["status"]) == (other.json()["job_id"], "completed")
        assert sorted([(await receiver.outcome())["job_id"] for _ in waiting]) == sorted(waiting)


async def test_a_comparison_that_fails_takes_nothing_but_itself_from_the_result(
    case: Case, store: Store, server: Program, receiver: Receiver
) -> None:
    await case.result(server, receiver)
    (kept,) = case.kept()
    store.put(kept, Known(b"whole, but no voice", []).to_bytes())
    result = await case.result(server, receiver)
    assert codes(result) == ["comparison_failed"]
    assert result["duration_s"] > 1
