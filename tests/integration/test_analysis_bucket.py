"""S3 as the analysis server uses it for what it has accepted, and the stand-in of the unit tests: the same promises."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from analysis_server.errors import StorageError
from analysis_server.settings import Settings
from analysis_server.storage import Bucket
from tests.support.analysis_bucket import BucketInMemory
from tests.support.analysis_program import BUCKET, KEYS, Store, running_store


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    async with running_store(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(params=["in memory", "S3"])
async def bucket(request: pytest.FixtureRequest, store: Store) -> AsyncIterator[Bucket]:
    if request.param == "in memory":
        yield BucketInMemory()
        return
    settings = Settings(
        s3_bucket_name=BUCKET, s3_endpoint_url=store.url, aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1]
    )
    async with Bucket(settings) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    return f"{uuid4()}/"


async def test_what_was_written_is_read_and_fetched(bucket: Bucket, prefix: str, tmp_path: Path) -> None:
    await bucket.write(f"{prefix}a", b"first")
    await bucket.write(f"{prefix}a", b"second")
    assert await bucket.read_now(f"{prefix}a", 6) == b"second"
    await bucket.fetch(f"{prefix}a", tmp_path / "a", 6)
    assert (tmp_path / "a").read_bytes() == b"second"


async def test_what_is_missing_or_too_large_is_not_read(bucket: Bucket, prefix: str) -> None:
    with pytest.raises(StorageError, match="missing"):
        await bucket.read_now(f"{prefix}a", 6)
    await bucket.write(f"{prefix}a", b"second")
    with pytest.raises(StorageError, match="too_large"):
        await bucket.read_now(f"{prefix}a", 5)


async def test_a_listing_has_what_is_under_the_prefix_and_nothing_else(bucket: Bucket, prefix: str) -> None:
    assert await bucket.listed(prefix) == {}
    for key in ("b", "a"):
        await bucket.write(f"{prefix}{key}", b"")
    await bucket.write(f"{uuid4()}/c", b"")
    assert (await bucket.listed(prefix)).keys() == {f"{prefix}a", f"{prefix}b"}


async def test_a_write_changes_the_version_and_nothing_else_does(bucket: Bucket, prefix: str) -> None:
    await bucket.write(f"{prefix}a", b"1")
    await bucket.write(f"{prefix}b", b"1")
    before = await bucket.listed(prefix)
    assert await bucket.listed(prefix) == before
    await bucket.write(f"{prefix}b", b"2")
    after = await bucket.listed(prefix)
    assert after[f"{prefix}a"] == before[f"{prefix}a"]
    assert after[f"{prefix}b"] != before[f"{prefix}b"]


async def test_the_latest_written_is_listed_last(bucket: Bucket, prefix: str) -> None:
    for key in ("b", "c", "a"):
        await bucket.write(f"{prefix}{key}", b"1")
    assert [key.removeprefix(prefix) for key in await bucket.listed(prefix)] == ["b", "c", "a"]


async def test_what_was_deleted_is_gone_and_may_be_deleted_again(bucket: Bucket, prefix: str) -> None:
    await bucket.write(f"{prefix}a", b"1")
    for _ in range(2):
        await bucket.remove(f"{prefix}a")
        assert await bucket.listed(prefix) == {}


async def test_more_than_a_page_is_listed_whole(bucket: Bucket, prefix: str) -> None:
    for first in range(0, 1001, 91):
        await asyncio.gather(*(bucket.write(f"{prefix}{number}", b"") for number in range(first, first + 91)))
    assert len(await bucket.listed(prefix)) == 1001


async def test_a_store_that_is_away_is_unavailable_to_every_call(tmp_path: Path) -> None:
    async with running_store(tmp_path) as away:
        settings = Settings(
            s3_bucket_name=BUCKET, s3_endpoint_url=away.url, aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1]
        )
        away.process.kill()
        away.process.wait()
        in_memory = BucketInMemory()
        in_memory.away = True
        async with Bucket(settings) as real:
            for bucket in (real, in_memory):
                for call in (bucket.read_now("a", 5), bucket.write("a", b""), bucket.remove("a"), bucket.listed("a")):
                    with pytest.raises(StorageError, match="unavailable"):
                        await call
