"""What is known of references: found out a few at a time, not twice, and written down."""

import asyncio
import socket
from functools import partial
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_server.job import Job, Part, Script
from analysis_server.omissions import Warnings
from analysis_server.references import Known, References, Source
from analysis_server.settings import Settings
from analysis_server.storage import Bucket
from analysis_server.workers import Workers
from chassis.children import Children, ExhaustedError
from contracts.addresses import Addresses
from tests.support.analysis_bucket import BucketInMemory
from tests.support.waiting import until_true

SETTINGS = Settings(s3_bucket_name="bucket", workers=2)
WARNING = {"code": "textgrid_missing", "text": "소리."}


async def begins() -> None:
    pass


def job(reference: dict[Part, str]) -> Job:
    return Job("j", "s3://bucket/a", "a", "http://h/", "v", (), reference, None)


class Understanding(Workers):
    """Workers that understand a reference when they are told to."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        self.begun = 0
        self.gate = asyncio.Event()

    async def understand(self, *_: object) -> tuple[bytes | None, Warnings]:
        self.begun += 1
        await self.gate.wait()
        return b"voice", []


async def test_no_more_references_are_fetched_than_are_understood() -> None:
    bucket, workers = BucketInMemory(), Understanding()
    bucket.objects |= {str(number): (number, b"sound") for number in range(4)}
    references = References(bucket, Addresses("bucket", None), workers, SETTINGS)
    known = asyncio.gather(
        *(references.known(job({"reference": f"s3://bucket/{number}"}), begins) for number in range(4))
    )
    await until_true(lambda: workers.begun == 1, "one that is understood")
    assert [call for call, _ in bucket.calls].count("fetch") == 1
    workers.gate.set()
    assert await known == [Known(b"voice", [])] * 4
    assert [call for call, _ in bucket.calls].count("fetch") == 4


async def test_of_the_jobs_that_want_the_same_one_begins() -> None:
    bucket, workers, begun = BucketInMemory(), Understanding(), list[int]()
    bucket.objects["r"] = (0, b"sound")
    references = References(bucket, Addresses("bucket", None), workers, SETTINGS)

    async def begins_as(number: int) -> None:
        begun.append(number)

    known = [
        asyncio.create_task(references.known(job({"reference": "s3://bucket/r"}), partial(begins_as, number)))
        for number in range(3)
    ]
    await until_true(lambda: workers.begun == 1, "one that is understood")
    workers.gate.set()
    await asyncio.gather(*known)
    await references.known(job({"reference": "s3://bucket/r"}), partial(begins_as, 3))
    assert begun == [0]


@pytest.mark.parametrize("part", get_args(Part))
async def test_what_takes_too_much_is_not_tried_again(part: Part, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    async def do(*_: object, **__: object) -> None:
        tries.append(1)
        raise ExhaustedError

    monkeypatch.setattr(Children, "do", do)
    bucket = BucketInMemory()
    bucket.objects["r"] = (0, b"whatever it is")
    references = References(bucket, Addresses("bucket", None), Workers(1, 1, 1), SETTINGS)
    for _ in range(2):
        known = await references.known(job({part: "s3://bucket/r"}), begins)
        assert [warning["code"] for warning in known.warnings] == ["reference_too_complex"]
    assert len(tries) == 1


async def test_while_s3_is_away_the_reference_is_left_out_with_the_reason() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        settings = Settings(
            s3_bucket_name="bucket",
            s3_endpoint_url=f"http://127.0.0.1:{nobody.getsockname()[1]}",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            storage_seconds=0,
        )
        async with Bucket(settings) as storage:
            references = References(storage, Addresses("bucket", None), Workers(1, 1, 1), settings)
            known = await references.known(job({"reference": "s3://bucket/r"}), begins)
    assert known.voice is None
    assert [warning["code"] for warning in known.warnings] == ["reference_unavailable"]


@given(st.none() | st.binary(min_size=1), st.lists(st.just(WARNING)))
def test_what_is_known_is_read_as_it_was_written(voice: bytes | None, warnings: list[dict[str, str]]) -> None:
    known = Known(voice, warnings)
    assert Known.from_bytes(known.to_bytes()) == known


@given(st.data())
def test_one_changed_byte_of_the_voice_is_noticed(data: st.DataObject) -> None:
    content = bytearray(Known(b"\x00a voice\xff", [WARNING]).to_bytes())
    at = data.draw(st.integers(content.index(b"\n") + 1, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="damaged"):
        Known.from_bytes(bytes(content))


def test_any_difference_that_matters_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(etag: str = "1", script: str = "Hello.", seconds: float = 60) -> str:
        settings = Settings(s3_bucket_name="bucket", max_audio_seconds=seconds)
        references = References(Bucket(settings), Addresses("bucket", None), Workers(1, 1, 1), settings)
        return references.digest({"reference": Source("r", etag)}, [Script(1, 0, 1, script)])

    digests = [digest(), digest(etag="2"), digest(script="Hello!"), digest(seconds=61)]
    assert digest() == digests[0]
    monkeypatch.setattr("analysis_server.references.version", lambda _: "0.0.0")
    assert len({*digests, digest()}) == 5
