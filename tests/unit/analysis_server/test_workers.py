"""Work that is late is tried again, a few times with pauses, and a reference that stays late has a warning."""

from typing import Any

import pytest

from analysis_server.errors import AnalysisError
from analysis_server.job import Job
from analysis_server.references import References
from analysis_server.settings import Settings
from analysis_server.workers import LATE, Workers
from chassis.children import Children, LateError
from contracts.addresses import Addresses
from tests.support.analysis_bucket import BucketInMemory

SETTINGS = Settings(s3_bucket_name="bucket")


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As many tries as there are entries left in it succeed none; the one after succeeds."""
    left = [1, 2, 3]

    async def do(*_: Any, **__: Any) -> Any:
        if left:
            left.pop()
            raise LateError
        return {}

    monkeypatch.setattr(Children, "do", do)
    monkeypatch.setattr("analysis_server.workers._PAUSE_SECONDS", 0)
    return left


async def test_work_that_is_late_three_times_may_still_succeed(tries: list[int], tmp_path: Any) -> None:
    assert await Workers(1, 1, 1).analyse(tmp_path, (), None) == {}


async def test_work_that_is_late_four_times_is_given_up(tries: list[int], tmp_path: Any) -> None:
    tries.append(4)
    with pytest.raises(AnalysisError) as told:
        await Workers(1, 1, 1).analyse(tmp_path, (), None)
    assert (told.value.code, tries) == (LATE, [])


async def test_a_reference_that_stays_late_has_its_own_warning_and_is_not_kept(
    tries: list[int],
) -> None:
    async def begins() -> None:
        pass

    tries.append(4)
    bucket = BucketInMemory()
    bucket.objects["r"] = (0, b"sound")
    references = References(bucket, Addresses("bucket", None), Workers(1, 1, 1), SETTINGS)
    known = await references.known(
        Job("j", "s3://bucket/a", "a", "http://h/", "v", (), {"reference": "s3://bucket/r"}, None), begins
    )
    assert [warning["code"] for warning in known.warnings] == ["reference_too_slow"]
    assert list(bucket.objects) == ["r"]
