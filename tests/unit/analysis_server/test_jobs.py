"""Jobs in hand: repeats join, what was accepted is gone on with, and what kills servers ends."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis_server.accepted import PREFIX, Accepted
from analysis_server.errors import ProblemError
from analysis_server.job import Job, Script
from analysis_server.jobs import MOST_STARTS, JobsInHand
from analysis_server.omissions import Warnings
from analysis_server.references import References
from analysis_server.settings import Settings
from analysis_server.webhook import Webhook
from analysis_server.workers import Workers
from contracts.addresses import Addresses
from tests.support.analysis_bucket import BucketInMemory
from tests.support.waiting import until_true

SETTINGS = Settings(s3_bucket_name="bucket")


def job(number: int) -> Job:
    return Job(f"id-{number}", f"s3://bucket/{number}", str(number), f"http://host/hook?{number}", "v", (), {}, None)


class GatedWorkers(Workers):
    """Workers that have analysed a recording when they are told to; `begun` has what they were given, in order."""

    def __init__(self) -> None:
        super().__init__(1, 1, 1)
        self.begun: list[str] = []
        self.gate = asyncio.Event()

    async def understand(self, *_: object) -> tuple[bytes | None, Warnings]:
        self.begun.append("reference")
        await self.gate.wait()
        return b"voice", []

    async def analyse(self, path: Path, _scripts: Sequence[Script], _reference: bytes | None) -> dict[str, Any]:
        self.begun.append(path.read_text())  # noqa: ASYNC240 - a few bytes
        await self.gate.wait()
        return {"duration_s": 1.0, "warnings": []}


class Hook(Webhook):
    """A webhook that keeps what it is told; `takes` says whether a last call is taken."""

    def __init__(self) -> None:
        super().__init__(1)
        self.told: list[dict[str, Any]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.takes = True

    async def deliver(self, _job: Job, body: dict[str, Any]) -> bool:
        self.told.append(body)
        await self.answers.wait()
        return True

    async def call_once(self, _job: Job, body: dict[str, Any]) -> bool:
        self.told.append(body)
        return self.takes


class Server:
    """One run of a server over a bucket."""

    def __init__(self, bucket: BucketInMemory, *, limit: int = 64, at_once: int = 8) -> None:
        self.bucket = bucket
        self.workers, self.hook = GatedWorkers(), Hook()
        self.jobs = JobsInHand(
            bucket,
            Accepted(bucket, SETTINGS),
            References(bucket, Addresses("bucket", None), self.workers, SETTINGS),
            self.workers,
            self.hook,
            limit=limit,
            at_once=at_once,
            max_audio_bytes=100,
        )

    async def accepted(self, *numbers: int) -> list[str]:
        return [await self.jobs.accept(job(number)) for number in numbers]

    async def has_begun(self, count: int) -> None:
        await until_true(lambda: len(self.workers.begun) >= count, f"{count} analyses that have begun")

    async def is_idle(self) -> None:
        await until_true(lambda: len(self.jobs) == 0, "a server without jobs")

    async def is_idle_after_all(self) -> None:
        """Wait until what was left has been gone on with, and has ended."""
        await until_true(lambda: not self.kept() and len(self.jobs) == 0, "a server that has done all there was")

    def kept(self) -> list[str]:
        return [key for key in self.bucket.objects if key.startswith(f"{PREFIX}accepted")]


class World:
    """A bucket with recordings, and the servers that were started over it."""

    def __init__(self) -> None:
        self.bucket = BucketInMemory()
        self.bucket.objects |= {str(number): (number, str(number).encode()) for number in range(10)}
        self.servers: list[Server] = []

    def server(self, **limits: int) -> Server:
        self.servers.append(Server(self.bucket, **limits))
        return self.servers[-1]

    async def kill(self, server: Server) -> None:
        """End it so that nothing of it reaches the bucket any more."""
        self.bucket.away = True
        server.hook.takes = False
        await server.jobs.stop(0)
        self.bucket.away = False

    async def restarted(self, server: Server, **limits: int) -> Server:
        await self.kill(server)
        again = self.server(**limits)
        again.jobs.start()
        return again


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.bucket.away = False
    for server in made.servers:
        await server.jobs.stop(0)


async def refused(accepting: Any) -> tuple[int, str, int | None]:
    with pytest.raises(ProblemError) as told:
        await accepting
    return told.value.status, told.value.code, told.value.retry_after_s


async def test_a_job_is_kept_before_it_is_accepted_and_until_its_webhook_was_answered(world: World) -> None:
    server = world.server()
    server.hook.answers.clear()
    assert await server.accepted(1) == ["id-1"]
    assert len(server.kept()) == 1
    server.workers.gate.set()
    await until_true(lambda: bool(server.hook.told), "a called webhook")
    assert len(server.kept()) == 1
    server.hook.answers.set()
    await server.is_idle()
    assert server.kept() == []


async def test_a_repeat_joins_the_job_under_way(world: World) -> None:
    server = world.server(limit=1)
    await server.accepted(1)
    again = dataclasses.replace(job(1), job_id="another")
    assert await server.jobs.accept(again) == "id-1"
    await server.has_begun(1)
    assert await server.jobs.accept(again) == "id-1"
    server.workers.gate.set()
    await server.is_idle()
    assert (server.workers.begun, len(server.hook.told)) == (["1"], 1)


async def test_repeats_that_come_at_once_are_one_job(world: World) -> None:
    server = world.server()
    repeats = [dataclasses.replace(job(1), job_id=f"repeat-{number}") for number in range(5)]
    ids = await asyncio.gather(*map(server.jobs.accept, repeats))
    assert len(set(ids)) == 1
    server.workers.gate.set()
    await server.is_idle()
    assert len(server.hook.told) == 1


async def test_a_repeat_at_another_server_joins_too(world: World) -> None:
    first, other = world.server(), world.server()
    await first.accepted(1)
    assert await other.jobs.accept(dataclasses.replace(job(1), job_id="another")) == "id-1"
    assert len(other.jobs) == 0


async def test_the_same_request_after_the_end_is_a_new_job(world: World) -> None:
    server = world.server()
    server.workers.gate.set()
    for number in (1, 2):
        assert await server.jobs.accept(dataclasses.replace(job(1), job_id=f"time-{number}")) == f"time-{number}"
        await server.is_idle()
    assert [body["job_id"] for body in server.hook.told] == ["time-1", "time-2"]


async def test_the_deletion_of_the_last_job_does_not_take_the_same_new_one_with_it(world: World) -> None:
    server = world.server()
    server.workers.gate.set()
    world.bucket.deletes.clear()
    await server.accepted(1)
    await until_true(lambda: ("remove", server.kept()[0]) in world.bucket.calls, "a deletion that has begun")
    server.hook.answers.clear()
    accepting = asyncio.create_task(server.jobs.accept(dataclasses.replace(job(1), job_id="anew")))
    world.bucket.deletes.set()
    assert await accepting == "anew"
    await until_true(lambda: len(server.hook.told) == 2, "a second webhook")
    assert len(server.kept()) == 1


async def test_a_job_that_cannot_be_kept_is_refused_so_that_the_caller_waits(world: World) -> None:
    server = world.server()
    world.bucket.away = True
    assert await refused(server.jobs.accept(job(1))) == (503, "storage_away", 10)
    assert len(server.jobs) == 0
    world.bucket.away = False
    assert await server.accepted(1) == ["id-1"]


@pytest.mark.parametrize("call", ["write", "read_now"])
async def test_what_this_server_may_not_do_is_an_outage_only_when_nothing_can_be_kept(world: World, call: str) -> None:
    """AWS forbids reading what is missing, when listing the bucket is not allowed."""
    server = world.server()
    world.bucket.forbidden = {call}
    if call == "write":
        assert await refused(server.jobs.accept(job(1))) == (503, "storage_away", 10)
    else:
        assert await server.accepted(1) == ["id-1"]


async def test_a_server_without_room_refuses_new_jobs(world: World) -> None:
    server = world.server(limit=2)
    await server.accepted(1, 2)
    assert await refused(server.jobs.accept(job(3))) == (503, "busy", 10)
    assert len(server.kept()) == 2


async def test_jobs_that_arrive_at_once_do_not_get_past_the_limit(world: World) -> None:
    server = world.server(limit=2)
    answers = await asyncio.gather(*(server.jobs.accept(job(number)) for number in range(5)), return_exceptions=True)
    assert [isinstance(answer, ProblemError) for answer in answers] == [False, False, True, True, True]


async def test_a_deletion_that_s3_does_not_answer_is_tried_again(world: World) -> None:
    server = world.server()
    await server.accepted(1)
    await server.has_begun(1)
    world.bucket.away = True
    server.workers.gate.set()
    await until_true(lambda: sum(call == "remove" for call, _ in world.bucket.calls) >= 2, "a second try")
    assert len(server.jobs) == 1
    world.bucket.away = False
    await server.is_idle()
    assert server.kept() == []
    assert len(server.hook.told) == 1


async def test_a_server_that_was_killed_goes_on_with_what_it_had(world: World) -> None:
    server = world.server()
    await server.accepted(1, 2, 3)
    again = await world.restarted(server)
    await again.has_begun(3)
    again.workers.gate.set()
    await again.is_idle()
    assert sorted(body["job_id"] for body in again.hook.told) == ["id-1", "id-2", "id-3"]
    assert {body["status"] for body in again.hook.told} == {"completed"}
    assert again.kept() == []


async def test_a_repeat_after_a_kill_joins_what_is_gone_on_with(world: World) -> None:
    server = world.server()
    await server.accepted(1)
    await world.kill(server)
    again = world.server()
    repeat = dataclasses.replace(job(1), job_id="another")
    assert await again.jobs.accept(repeat) == "id-1"  # before it has looked what there is
    again.jobs.start()
    await again.has_begun(1)
    assert await again.jobs.accept(repeat) == "id-1"
    assert again.workers.begun == ["1"]


async def test_what_was_accepted_is_not_refused_after_a_restart_with_less_room(world: World) -> None:
    server = world.server(limit=3)
    await server.accepted(1, 2, 3)
    again = await world.restarted(server, limit=1)
    await again.has_begun(3)
    assert (await refused(again.jobs.accept(job(4))))[1] == "busy"


async def test_a_server_that_starts_while_s3_is_away_goes_on_when_it_is_back(world: World) -> None:
    server = world.server()
    await server.accepted(1)
    await world.kill(server)
    world.bucket.away = True
    again = world.server()
    again.jobs.start()
    await until_true(lambda: world.bucket.calls[-1][1].startswith(f"{PREFIX}alive"), "a look in vain")
    world.bucket.away = False
    await again.has_begun(1)


async def test_a_job_whose_analysis_kills_servers_fails_in_the_end(world: World) -> None:
    server = world.server()
    await server.accepted(1)
    await server.has_begun(1)
    for _ in range(MOST_STARTS):
        server = await world.restarted(server)
        await server.has_begun(1)
    server = await world.restarted(server)
    await server.is_idle_after_all()
    (body,) = server.hook.told
    assert (body["job_id"], body["status"]) == ("id-1", "failed")
    assert "died" in body["error"]
    assert (server.workers.begun, server.kept()) == ([], [])


async def test_jobs_whose_reference_kills_servers_fail_in_the_end(world: World) -> None:
    world.bucket.objects["r"] = (10, b"sound")
    server = world.server()
    for number in (1, 2):
        await server.jobs.accept(dataclasses.replace(job(number), reference={"reference": "s3://bucket/r"}))
    await server.has_begun(1)
    for _ in range(2 * MOST_STARTS):
        server = await world.restarted(server)
        await server.has_begun(1)
        assert server.workers.begun == ["reference"]
    server = await world.restarted(server)
    await server.is_idle_after_all()
    assert {body["status"] for body in server.hook.told} == {"failed"}


async def test_jobs_that_only_waited_while_the_server_died_are_not_counted(world: World) -> None:
    server = world.server(at_once=1)
    await server.accepted(1, 2, 3, 4)
    for _ in range(MOST_STARTS + 1):
        server = await world.restarted(server, at_once=1)
        await server.has_begun(1)
    server = await world.restarted(server, at_once=1)
    server.workers.gate.set()
    await server.is_idle_after_all()
    statuses = {body["job_id"]: body["status"] for body in server.hook.told}
    assert len(statuses) == 4
    assert list(statuses.values()).count("completed") >= 2


async def test_of_the_jobs_that_may_have_killed_the_server_one_runs_at_a_time(world: World) -> None:
    """So the one that does it takes no other with it."""
    server = world.server()
    await server.accepted(1, 2, 3)
    server = await world.restarted(server)
    await server.has_begun(3)  # nobody has been counted yet
    server = await world.restarted(server)
    await server.accepted(4)
    await server.has_begun(2)
    assert len(server.jobs) == 4
    assert sorted(server.workers.begun)[1] == "4"  # which no server has died of
    server.workers.gate.set()
    await server.is_idle()
    assert {body["status"] for body in server.hook.told} == {"completed"}


@pytest.mark.parametrize("takes", [True, False])
async def test_a_stopping_server_keeps_what_it_could_not_report(world: World, takes: bool) -> None:
    server = world.server(at_once=1)
    server.hook.answers.clear()
    server.hook.takes = takes
    await server.accepted(1)
    server.workers.gate.set()
    await until_true(lambda: bool(server.hook.told), "a called webhook")
    await server.jobs.stop(0)
    assert len(server.kept()) == (0 if takes else 1)
    assert len(server.hook.told) == 2


async def test_a_stopping_server_keeps_what_it_has_not_analysed_and_takes_no_more(world: World) -> None:
    server = world.server()
    await server.accepted(1)
    await server.has_begun(1)
    await server.jobs.stop(0)
    assert len(server.kept()) == 1
    assert server.hook.told == []
    assert (await refused(server.jobs.accept(job(2))))[1] == "stopping"


async def test_a_server_with_jobs_shows_that_it_lives_and_a_stopped_one_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analysis_server.jobs.LOOK_SECONDS", 0.01)
    server = world.server()

    def signs() -> int:
        return sum(call == "write" and key.startswith(f"{PREFIX}alive") for call, key in world.bucket.calls)

    def looks() -> int:
        return sum(call == "listed" for call, _ in world.bucket.calls)

    server.jobs.start()
    await until_true(lambda: looks() >= 5, "five looks")
    assert signs() == 1  # an idle server need not be known to live
    await server.accepted(1)
    await until_true(lambda: signs() >= 5, "signs of life")
    await server.jobs.stop(0)
    assert not [key for key in world.bucket.objects if key.startswith(f"{PREFIX}alive")]
