"""Share links: the stand-in of the unit tests and MongoDB behave alike, and every question has an index."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from chassis.mongodb import REQUEST_LIMITS, MongoDB
from contracts.api import ShareRight
from gateway.sharing import links as sharing
from gateway.sharing.links import Link
from gateway.sharing.store import LinkStore
from local_stack.stack import Stack
from tests.support import gateway_stores as in_memory
from tests.support.databases import own_database, profiled, stages

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def address(stack: Stack) -> AsyncIterator[str]:
    """A database of this test's own on the stack's server."""
    async with own_database(stack) as url:
        yield url


@pytest.fixture(params=["in memory", "MongoDB"])
async def links(request: pytest.FixtureRequest, address: str) -> AsyncIterator[sharing.LinkStore]:
    """The stand-in and the real one."""
    mongodb = MongoDB(address, REQUEST_LIMITS)
    yield in_memory.ShareLinks() if request.param == "in memory" else LinkStore(mongodb)
    mongodb.close()


def link(number: int, job_id: str = "a-job") -> Link:
    """A link that is made at `number` seconds, and lasts an hour."""
    at = datetime.now(UTC) + timedelta(days=1, seconds=number)
    at = at.replace(microsecond=0)
    return Link(
        secret_sha256=f"{job_id}-{number}",
        link_id=f"id-{number}",
        job_id=job_id,
        right=ShareRight.AUDIO,
        created_at=at,
        expires_at=at + timedelta(hours=1),
    )


async def test_a_link_is_found_until_it_expires_is_removed_or_its_job_is(links: sharing.LinkStore) -> None:
    first, second, other = link(1), link(2), link(3, "another-job")
    for one in (first, second, other):
        await links.insert(one)
    assert await links.find(first.secret_sha256, NOW) == first
    assert await links.find(first.secret_sha256, first.expires_at) is None
    assert await links.find("nobody's", NOW) is None
    assert await links.of_job("a-job", NOW) == [first, second]
    assert await links.of_job("a-job", first.expires_at) == [second]
    assert not await links.remove("another-job", first.link_id)
    assert await links.remove("a-job", first.link_id)
    assert not await links.remove("a-job", first.link_id)
    await links.forget(["a-job", "no-job"])
    assert await links.of_job("a-job", NOW) == []
    assert await links.of_job("another-job", NOW) == [other]


async def test_no_question_reads_more_than_it_answers(address: str) -> None:
    mongodb = MongoDB(address, REQUEST_LIMITS)
    store = LinkStore(mongodb)
    for number in range(30):
        await store.insert(link(number, f"job-{number % 10}"))
    async with profiled(address) as entries:
        await store.find("job-1-1", NOW)
        await store.of_job("job-1", NOW)
        await store.remove("job-1", "id-1")
        await store.forget(["job-2"])
    mongodb.close()
    asked = [entry for entry in entries if entry["ns"].endswith(".share_links")]
    assert len(asked) == 4
    for entry in asked:
        assert not {"COLLSCAN", "SORT"} & set(stages(entry.get("execStats"))), entry
        assert entry["docsExamined"] <= 3
