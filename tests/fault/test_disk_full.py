"""No room on the S3 server: uploads are refused with nothing left half-done, and what was accepted completes later."""

import errno
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.bucket import Bucket
from tests.support.proxied import Proxied
from tests.support.recordings import wav, wav_of_size
from tests.support.rounds import Rounds
from tests.support.sori import Sori
from tests.support.waiting import until_true

SMALL_BYTES = 40_000
IN_PARTS_BYTES = 12 * 1024 * 1024
ROOM_BYTES = 8 * 1024 * 1024
"""Enough for one part of the larger recording, not for all of it."""
BLOCK_BYTES = 1024 * 1024
REFUSED_SECONDS = 5.0


class Disk:
    """The S3 server's disk, as seen from outside; the file that fills it is in no bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    def fill(self, room_bytes: int = 0) -> None:
        """Fill the disk until only `room_bytes` are free."""
        os.sync()
        with self._filler.open("ab", buffering=0) as filler:
            while (surplus := self.free - room_bytes) > 0:
                try:
                    filler.write(b"\0" * min(surplus, BLOCK_BYTES))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def clear(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        """How many bytes are free."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def files(self) -> dict[str, int]:
        """All files on it except the filler, each with its size."""
        files = (path for path in self._folder.rglob("*") if path.is_file() and path != self._filler)
        return {str(path.relative_to(self._folder)): path.stat().st_size for path in files}


@pytest.fixture
async def disk(proxied: Proxied, proxied_bucket: Bucket) -> AsyncIterator[Disk]:
    """The small disk, with room again after the test."""
    if proxied.disk is None:
        pytest.skip("a small file system cannot be mounted here, not even in a namespace of our own")
    # The stack is shared, and tests of bad networks may have left in it what only the sweeper takes, after its age.
    await proxied_bucket.clear_inbox()
    await proxied_bucket.until_inbox_is_empty()
    found = Disk(proxied.disk)
    yield found
    found.clear()
    for proxy in proxied.all:
        proxy.heal()


@pytest.mark.parametrize(
    ("size", "room"),
    [
        pytest.param(SMALL_BYTES, 0, id="small"),
        pytest.param(SMALL_BYTES, SMALL_BYTES // 2, id="small, begun"),
        pytest.param(IN_PARTS_BYTES, 0, id="in parts"),
        pytest.param(IN_PARTS_BYTES, ROOM_BYTES, id="in parts, begun"),
    ],
)
async def test_an_upload_that_there_is_no_room_for_is_refused_and_leaves_nothing(
    disk: Disk,
    proxied_sori: Sori,
    proxied_bucket: Bucket,
    *,
    proxied_jobs: Any,
    rounds: Rounds,
    size: int,
    room: int,
) -> None:
    recording = wav_of_size(size, seed=rounds.random.randrange(2**32))
    jobs, files = await proxied_jobs.count_documents({}), disk.files()
    disk.fill(room)
    rounds.say(f"room for {disk.free} bytes, a recording of {size}")
    began = time.monotonic()
    answer = await proxied_sori.upload(recording)
    rounds.say(f"answered {answer.status_code} after {time.monotonic() - began:.2f} s: {answer.text}")
    assert_refused(answer)
    assert time.monotonic() - began < REFUSED_SECONDS
    assert not await proxied_bucket.unfinished()
    assert disk.files() == files
    assert await proxied_jobs.count_documents({}) == jobs
    disk.clear()
    state = await proxied_sori.completed(recording)
    rounds.say(f"with room for {disk.free} bytes the same recording is {state['status']}")


async def test_what_was_accepted_completes_once_there_is_room_for_the_uploaders_copy(
    disk: Disk, proxied: Proxied, proxied_sori: Sori, proxied_bucket: Bucket, rounds: Rounds
) -> None:
    (to_s3,) = proxied.between("uploader>s3")
    to_s3.refuse()
    accepted = [await rounds.accepted() for _ in range(4)]
    disk.fill()
    rounds.say(f"{len(accepted)} jobs accepted, room for {disk.free} bytes")
    tried = tries(proxied)
    to_s3.heal()
    # Each job's message is tried at least once more while there is no room.
    await until_true(lambda: tries(proxied) >= tried + 2 * len(accepted), "copies that fail")
    sizes = disk.files()
    for job in accepted:
        copies = [size for name, size in sizes.items() if f"audio/{job.job_id}" in name]
        assert not any(copies), f"half a copy: {copies}"
        assert (await proxied_sori.state(job.job_id))["status"] == "processing"
    assert_refused(await proxied_sori.upload(wav(1, seed=rounds.random.randrange(2**32))))
    disk.clear()
    rounds.say(f"{tries(proxied) - tried} copies failed; now room for {disk.free} bytes")
    began = time.monotonic()
    for job in accepted:
        await rounds.ended(job, began)
        await rounds.check(job)
    rounds.say(f"all completed within {time.monotonic() - began:.1f} s")
    await proxied_bucket.until_inbox_is_empty()


def assert_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["content-type"].startswith("application/problem+json")


def tries(proxied: Proxied) -> int:
    """How often an uploader has said that it will try again."""
    logs = (proxied.stack.log(f"uploader-{replica}").read_text(encoding="utf-8") for replica in (1, 2))
    return sum(log.count('"event will be tried again"') for log in logs)
