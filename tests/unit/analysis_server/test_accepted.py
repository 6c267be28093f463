"""What was accepted: whose it is, who takes it over and when, and what S3 is asked for it."""

import dataclasses

import pytest

from analysis_server.accepted import LOOKS_UNTIL_DEAD, LOOKS_UNTIL_FORGOTTEN, PREFIX, Accepted, Kept
from analysis_server.errors import StorageError
from analysis_server.job import Job, Script
from analysis_server.settings import Settings
from tests.support.analysis_bucket import BucketInMemory

JOB = Job(
    "id",
    "s3://bucket/a.wav",
    "a.wav",
    "http://host/hook?signature=한글",
    "token-1",
    (Script(1, 0.5, 2, "Hello, “you”."), Script(2, 2, 3.25, "Bye.")),
    {"reference": "s3://bucket/r", "pitch": "s3://bucket/p"},
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)


def job(number: int) -> Job:
    return dataclasses.replace(JOB, job_id=f"id-{number}", webhook_url=f"http://host/hook?{number}")


def run_at(bucket: BucketInMemory, port: int = 8001) -> Accepted:
    """Return a run of the server at a port, which is a place of its own."""
    return Accepted(bucket, Settings(s3_bucket_name="bucket", port=port))


async def looked(accepted: Accepted, *, in_hand: frozenset[str] = frozenset()) -> list[Kept]:
    taken: list[Kept] = []
    await accepted.take_over(lambda: in_hand, taken.append)
    return taken


@pytest.fixture
def bucket() -> BucketInMemory:
    return BucketInMemory()


async def test_a_job_is_found_as_it_was_kept(bucket: BucketInMemory) -> None:
    mine = run_at(bucket)
    await mine.keep(JOB)
    found = await mine.find(mine.key_of(JOB))
    assert found is not None
    assert found.job == JOB
    assert (found.starts, mine.is_mine(found), run_at(bucket).is_mine(found)) == (0, True, False)


async def test_a_job_costs_one_small_write_and_one_deletion(bucket: BucketInMemory) -> None:
    mine = run_at(bucket)
    kept = await mine.keep(JOB)
    await mine.forget(kept)
    assert bucket.calls == [("write", kept.key), ("remove", kept.key)]
    assert bucket.objects == {}


def test_the_same_request_has_the_same_key_whatever_its_id_and_its_trace(bucket: BucketInMemory) -> None:
    key = run_at(bucket).key_of(JOB)
    assert key.startswith(PREFIX)
    assert "signature" not in key
    assert run_at(bucket, 8002).key_of(dataclasses.replace(JOB, job_id="other", traceparent=None)) == key


@pytest.mark.parametrize(
    "other",
    [
        {"webhook_url": "http://host/hook?signature=other"},
        {"s3_audio_url": "s3://bucket/b.wav"},
        {"video_id": "token-2"},
        {"scripts": ()},
        {"reference": {}},
    ],
    ids=str,
)
def test_another_request_has_another_key(bucket: BucketInMemory, other: dict[str, object]) -> None:
    mine = run_at(bucket)
    assert mine.key_of(dataclasses.replace(JOB, **other)) != mine.key_of(JOB)  # type: ignore[arg-type] # any field


async def test_what_an_earlier_run_at_this_place_left_is_taken_over_at_once(bucket: BucketInMemory) -> None:
    dead = run_at(bucket)
    for number in (2, 1, 3):
        await dead.keep(job(number))
    again = run_at(bucket)
    taken = await looked(again)
    assert [kept.job for kept in taken] == [job(2), job(1), job(3)]
    assert all(again.is_mine(kept) for kept in taken)
    found = await again.find(taken[0].key)
    assert found is not None
    assert again.is_mine(found)


async def test_what_a_living_server_has_is_left_to_it(bucket: BucketInMemory) -> None:
    living, mine = run_at(bucket), run_at(bucket, 8002)
    await living.keep(JOB)
    for _ in range(5 * LOOKS_UNTIL_DEAD):
        await living.show_life()
        assert await looked(mine) == []


async def test_what_a_server_elsewhere_left_is_taken_over_when_it_shows_no_more_life(bucket: BucketInMemory) -> None:
    dead, mine = run_at(bucket), run_at(bucket, 8002)
    await dead.show_life()
    await dead.keep(JOB)
    for _ in range(LOOKS_UNTIL_DEAD):
        assert await looked(mine) == []
    (kept,) = await looked(mine)
    assert (kept.job, mine.is_mine(kept)) == (JOB, True)
    assert await looked(mine, in_hand=frozenset({kept.key})) == []


async def test_one_that_died_before_its_first_sign_of_life_is_dead_too(bucket: BucketInMemory) -> None:
    mine = run_at(bucket, 8002)
    await looked(mine)
    await run_at(bucket).keep(JOB)
    taken = [kept for _ in range(3 * LOOKS_UNTIL_DEAD) for kept in await looked(mine)]
    assert [kept.job for kept in taken] == [JOB]


async def test_nobody_dies_of_an_outage_of_s3(bucket: BucketInMemory) -> None:
    living, mine = run_at(bucket), run_at(bucket, 8002)
    await living.show_life()
    await living.keep(JOB)
    assert await looked(mine) == []
    bucket.away = True
    for _ in range(5 * LOOKS_UNTIL_DEAD):
        with pytest.raises(StorageError):
            await looked(mine)
    bucket.away = False
    assert await looked(mine) == []


async def test_of_two_that_find_the_same_the_later_one_leaves_it_to_the_first(bucket: BucketInMemory) -> None:
    await run_at(bucket).keep(JOB)
    first, second = run_at(bucket, 8002), run_at(bucket, 8003)
    for _ in range(LOOKS_UNTIL_DEAD + 1):
        await looked(first)
        await looked(second)
    assert len(await looked(first)) == 1
    await first.show_life()
    assert await looked(second) == []


async def test_jobs_that_end_soon_are_never_read_by_others(bucket: BucketInMemory) -> None:
    mine, other = run_at(bucket), run_at(bucket, 8002)
    await looked(other)
    kept = await mine.keep(JOB)
    bucket.calls.clear()
    for _ in range(LOOKS_UNTIL_DEAD):
        await looked(other)
    await mine.forget(kept)
    await looked(other)
    assert {call for call, _ in bucket.calls} == {"listed", "remove"}


async def test_what_was_written_although_s3_had_not_said_so_is_gone_on_with(bucket: BucketInMemory) -> None:
    mine = run_at(bucket)
    await looked(mine)
    await mine.keep(JOB)
    taken = [kept for _ in range(LOOKS_UNTIL_DEAD + 1) for kept in await looked(mine)]
    assert [kept.job for kept in taken] == [JOB]


async def test_what_is_in_hand_by_now_is_not_taken_over(bucket: BucketInMemory) -> None:
    await run_at(bucket).keep(JOB)
    again = run_at(bucket)
    answers = [frozenset[str](), frozenset({again.key_of(JOB)})]  # it is accepted once more while it is being read
    taken: list[Kept] = []
    await again.take_over(lambda: answers.pop(0), taken.append)
    assert taken == []


async def test_what_could_not_be_taken_over_is_looked_at_again(bucket: BucketInMemory) -> None:
    await run_at(bucket).keep(JOB)
    again = run_at(bucket)
    bucket.forbidden = {"write"}
    assert await looked(again) == []
    assert not again.has_looked
    bucket.forbidden = set()
    assert len(await looked(again)) == 1
    assert again.has_looked


@pytest.mark.parametrize("content", [b"", b"{}", b'{"run": "r", "job": {}}', b"x" * 5 * 1024 * 1024], ids=range(4))
async def test_what_is_no_accepted_job_is_removed(bucket: BucketInMemory, content: bytes) -> None:
    mine = run_at(bucket)
    await bucket.write(mine.key_of(JOB), content)
    assert await looked(mine) == []
    assert bucket.objects == {}


async def test_what_another_version_of_the_server_wrote_keeps_its_key(bucket: BucketInMemory) -> None:
    await run_at(bucket).keep(JOB)
    (entry,) = bucket.objects.values()
    bucket.objects = {f"{PREFIX}accepted-of-another-version": (entry[0], entry[1].replace(b"{", b'{"more":1,', 1))}
    again = run_at(bucket)
    (kept,) = await looked(again)
    await again.forget(kept)
    assert bucket.objects == {}


async def test_starts_are_counted_in_the_object_and_survive(bucket: BucketInMemory) -> None:
    await run_at(bucket).keep(JOB)
    for starts in range(3):
        again = run_at(bucket)
        (kept,) = await looked(again)
        assert kept.starts == starts
        await again.count_start(kept)


async def test_a_start_that_cannot_be_written_down_is_begun_all_the_same(bucket: BucketInMemory) -> None:
    mine = run_at(bucket)
    kept = await mine.keep(JOB)
    bucket.away = True
    await mine.count_start(kept)
    assert kept.starts == 1


async def test_what_may_not_be_deleted_is_not_found_again_by_this_run(bucket: BucketInMemory) -> None:
    mine = run_at(bucket)
    kept = await mine.keep(JOB)
    bucket.forbidden = {"remove"}
    await mine.forget(kept)
    for _ in range(2 * LOOKS_UNTIL_DEAD):
        assert await looked(mine) == []


async def test_signs_of_life_of_the_dead_are_removed_in_the_end(bucket: BucketInMemory) -> None:
    dead, mine = run_at(bucket), run_at(bucket, 8002)
    await dead.show_life()
    await mine.show_life()
    for _ in range(LOOKS_UNTIL_FORGOTTEN + 1):
        assert len(bucket.objects) == 2
        await looked(mine)
    assert len(bucket.objects) == 1
    await mine.leave()
    assert bucket.objects == {}
