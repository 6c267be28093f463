import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import bson
import psutil
import pytest

from tests.bench import meter
from tests.bench.copies import copied, job_ids
from tests.bench.database import of_job
from tests.bench.listeners import Stream
from tests.bench.tracing import Passed

JOB, OTHER = job_ids(1, 2)
BUSY_CHILD = (
    "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'while True: pass']); print(flush=True); input()"
)


def update(job_id: str, *fields: str) -> dict[str, Any]:
    command = {"q": {"_id": job_id}, "u": {"$set": dict.fromkeys(fields, 1)}}
    return {"op": "update", "command": command, "keysExamined": 1, "docsExamined": 1, "nModified": 1}


def test_a_jobs_operations_and_messages_are_counted_and_no_others() -> None:
    operations = [update(JOB, "view"), update(OTHER, "view"), {"command": {"find": "jobs", "filter": {"_id": JOB}}}]
    passed = [Passed(True, 1, JOB.encode()), Passed(False, 1, b'{"subject":"%b"}' % JOB.encode()), Passed(True, 1, b"")]
    counts = of_job(JOB, operations, passed)
    assert (counts.keys, counts.documents, counts.writes, counts.messages) == (1, 1, 1, 2)


@pytest.mark.parametrize(("timers", "writes"), [(0, 1), (2, 1), (3, 2)])
def test_two_writes_of_the_redrives_timer_are_free(timers: int, writes: int) -> None:
    operations = [update(JOB, "view", "publish_at"), *(update(JOB, "publish_at", "redrives") for _ in range(timers))]
    assert of_job(JOB, operations, []).writes == writes


def test_a_copy_has_its_own_id_and_hash_everywhere() -> None:
    document = {"_id": JOB, "sha256": "ab" * 32, "view": {"s3_url": f"s3://sori/audio/{JOB}.wav"}, "revision": 5}
    copy = bson.decode(copied(bson.encode(document), JOB, OTHER))
    assert copy["_id"] == OTHER
    assert copy["view"]["s3_url"] == f"s3://sori/audio/{OTHER}.wav"
    assert copy["sha256"] != document["sha256"]
    assert copy["revision"] == 5


@pytest.fixture
def manager() -> Iterator[subprocess.Popen[str]]:
    """A process with a child, which is a part of its own; both end when the test does."""
    with subprocess.Popen([sys.executable, "-c", BUSY_CHILD], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            for child in psutil.Process(process.pid).children():
                child.kill()
            process.kill()


def test_a_process_manager_is_not_charged_for_its_parts(manager: subprocess.Popen[str]) -> None:
    (child,) = psutil.Process(manager.pid).children()
    while child.cpu_times().user < 0.1:  # it works all the time
        pass
    parts = {"manager": [manager.pid], "child": [child.pid]}
    before = meter.cpu_ms(parts)
    together = meter.cpu_ms({"manager": [manager.pid]})["manager"]
    assert sum(before.values()) <= together <= sum(meter.cpu_ms(parts).values())
    assert before["child"] >= 100
    assert before["manager"] < together


def test_an_event_counts_once_however_its_bytes_arrive() -> None:
    seen: list[int] = []
    stream = Stream(seen.append, b"")
    pieces = (
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"id: 1\nda",
        b'ta: {"data: ',
        b'":1}\n\n',
        b"id: 2\ndata: x\n\nid: 3\ndata: y\n\n",
    )
    for piece in pieces:
        stream.data_received(piece)
    assert seen == [0, 0, 1, 0, 2]
