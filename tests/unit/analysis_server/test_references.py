"""What becomes of a reference while S3 is away, and how what is known of one is written down."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_server.addresses import Addresses
from analysis_server.job import Job, Script
from analysis_server.references import Known, References, Source
from analysis_server.settings import Settings
from analysis_server.storage import Bucket
from analysis_server.workers import Workers

WARNING = {"code": "textgrid_missing", "text": "소리."}


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
        job = Job("j", "s3://bucket/a", "a", "http://h/", "v", (), {"reference": "s3://bucket/r"}, None)
        async with Bucket(settings) as storage:
            references = References(storage, Addresses("bucket", None), Workers(1, 1, 1), settings)
            known = await references.known(job)
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
