"""Idempotency-Key: one key makes one job, whoever dies, however many come at once."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.job import Job
from gateway import idempotency
from gateway.errors import BackEndError
from gateway.idempotency import (
    Accepted,
    Claim,
    Idempotency,
    InvalidKeyError,
    JobGoneError,
    KeyInUseError,
    KeyReusedError,
    parsed_key,
)
from gateway.submissions import Recording, StoredAudio, Submissions
from tests.unit import stories

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
BYTES = b"RIFF and more"
LIMIT_SECONDS = 5.0


class File:
    """A file that arrives when it is let go."""

    filename: str | None = "a.wav"

    def __init__(self, content: bytes = BYTES, error: BaseException | None = None, *, waits: bool = False) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.read = False
        self._content = content
        self._error = error
        if not waits:
            self.go_on.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        self.read = True
        self.begun.set()
        await self.go_on.wait()
        yield self._content
        if self._error:
            raise self._error


class Inbox:
    """The S3 inbox in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def write(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        self.objects[key] = b"".join([chunk async for chunk in chunks])

    async def take_back(self, audio: StoredAudio, key: str) -> None:
        raise NotImplementedError

    async def remove_all(self, keys: list[str]) -> None:
        for key in keys:
            del self.objects[key]


class Jobs:
    """The job documents in memory; `unsure` makes the next insert fail although it was done."""

    def __init__(self) -> None:
        self.kept: dict[str, Job] = {}
        self.unsure = False
        self.unseen = False

    async def insert(self, job: Job) -> bool:
        if job.job_id in self.kept:
            return False
        self.kept[job.job_id] = job
        if self.unsure:
            self.unsure = False
            raise BackEndError("MongoDB")
        return True

    async def recording(self, job_id: str) -> Recording | None:
        job = self.kept.get(job_id)
        return None if job is None or self.unseen else Recording(job.token_id, job.sha256)


@dataclass(frozen=True)
class Kept:
    claim: Claim
    leased: bool


class Claims:
    """The keys in memory; leases end when `expire` says so."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}
        self.renewals = 0
        self.renewed = asyncio.Event()
        self.broken: set[str] = set()

    async def claim(self, key: str, owner: str, job_id: str) -> Claim:
        self._work("claim")
        before = self.kept.get(key)
        if before is None:
            self.kept[key] = Kept(Claim(owner, job_id, None), leased=True)
        elif before.claim.recording is None and not before.leased:
            self.kept[key] = Kept(replace(before.claim, owner=owner), leased=True)
        return self.kept[key].claim

    async def renew(self, key: str, owner: str) -> None:
        assert self.kept[key].claim.owner == owner
        self.renewals += 1
        self.renewed.set()
        self._work("renew")

    async def free(self, key: str, owner: str) -> None:
        self._work("free")
        if self.kept[key].claim.owner == owner:
            self.expire()

    async def settle(self, key: str, recording: Recording) -> None:
        self._work("settle")
        self.kept[key] = Kept(replace(self.kept[key].claim, recording=recording), leased=False)

    def expire(self) -> None:
        self.kept = {key: replace(kept, leased=False) for key, kept in self.kept.items()}

    def _work(self, what: str) -> None:
        if what in self.broken:
            raise ConnectionError(what)


class References:
    """What recordings are compared with: nothing."""

    async def of(self, _: str) -> None:
        return None


class Desk:
    """The core with its stand-ins."""

    def __init__(self) -> None:
        self.inbox, self.jobs, self.claims = Inbox(), Jobs(), Claims()
        self.core = Idempotency(self.claims, self.jobs, Submissions(self.inbox, self.jobs, References()))

    async def accept(self, file: File | None = None, token_id: str = stories.TOKEN_ID, key: str = KEY) -> Accepted:
        return await self.core.accept(key, token_id, file or File(), stories.TRACEPARENT)


async def test_the_same_request_again_is_the_same_job_and_publishes_nothing() -> None:
    desk = Desk()
    first = await desk.accept()
    assert first.event is not None
    assert first.event.subject == first.job_id
    again = await desk.accept()
    assert again == Accepted(first.job_id, None)
    assert len(desk.jobs.kept) == len(desk.inbox.objects) == 1


async def test_a_key_whose_job_was_purged_is_not_answered_as_if_it_were_there() -> None:
    desk = Desk()
    first = await desk.accept()
    del desk.jobs.kept[first.job_id]
    with pytest.raises(JobGoneError):
        await desk.accept()
    assert not desk.jobs.kept, "a repeat that was on its way brings nothing back"


async def test_another_key_is_another_job() -> None:
    desk = Desk()
    assert (await desk.accept()).job_id != (await desk.accept(key="another")).job_id


@pytest.mark.parametrize(("content", "token_id"), [(b"other bytes", stories.TOKEN_ID), (BYTES, "another token")])
async def test_a_key_that_was_used_for_something_else_is_refused(content: bytes, token_id: str) -> None:
    desk = Desk()
    await desk.accept()
    with pytest.raises(KeyReusedError):
        await desk.accept(File(content), token_id)
    assert len(desk.jobs.kept) == len(desk.inbox.objects) == 1


async def test_a_request_whose_twin_is_under_way_is_told_so_before_it_is_read() -> None:
    desk = Desk()
    slow = File(waits=True)
    first = asyncio.create_task(desk.accept(slow))
    await slow.begun.wait()
    second = File()
    with pytest.raises(KeyInUseError):
        await desk.accept(second)
    assert not second.read
    slow.go_on.set()
    assert (await first).event
    assert len(desk.jobs.kept) == 1


@pytest.mark.parametrize("error", [ValueError("a broken form"), asyncio.CancelledError(), BackEndError("S3")])
async def test_a_request_that_fails_frees_its_key_at_once_and_the_next_has_the_same_job_id(
    error: BaseException,
) -> None:
    desk = Desk()
    with pytest.raises(type(error)):
        await desk.accept(File(error=error))
    (kept,) = desk.claims.kept.values()
    assert not kept.leased
    accepted = await desk.accept()
    assert accepted.job_id == kept.claim.job_id
    assert accepted.event


async def test_a_request_that_died_is_taken_over_once_its_lease_is_over() -> None:
    desk = Desk()
    dead = File(waits=True)
    died = asyncio.create_task(desk.accept(dead))
    await dead.begun.wait()
    desk.claims.expire()
    accepted = await desk.accept()
    assert accepted.event
    # It was not dead after all: the job's id keeps it from making another one.
    dead.go_on.set()
    assert await died == Accepted(accepted.job_id, None)
    assert len(desk.jobs.kept) == len(desk.inbox.objects) == 1


async def test_a_slow_request_with_other_bytes_loses_to_the_job_that_there_is() -> None:
    desk = Desk()
    slow = File(b"other bytes", waits=True)
    lost = asyncio.create_task(desk.accept(slow))
    await slow.begun.wait()
    desk.claims.expire()
    accepted = await desk.accept()
    slow.go_on.set()
    with pytest.raises(KeyReusedError):
        await lost
    assert set(desk.jobs.kept) == {accepted.job_id}
    assert await desk.accept() == Accepted(accepted.job_id, None)


async def test_a_job_that_was_kept_although_its_request_failed_is_the_one_that_the_next_gets() -> None:
    desk = Desk()
    desk.jobs.unsure = True
    with pytest.raises(BackEndError):
        await desk.accept()
    (job_id,) = desk.jobs.kept
    assert await desk.accept() == Accepted(job_id, None)
    assert len(desk.jobs.kept) == 1
    (job,) = desk.jobs.kept.values()
    event = events.decode((job.outbox or "").encode())
    assert isinstance(event, events.UploadReceived)
    assert set(desk.inbox.objects) == {event.data.inbox_key}


async def test_a_job_that_nobody_can_see_yet_is_not_answered_for() -> None:
    desk = Desk()
    desk.jobs.unsure = desk.jobs.unseen = True
    with pytest.raises(BackEndError):
        await desk.accept()
    with pytest.raises(KeyInUseError):
        await desk.accept()
    desk.jobs.unseen = False
    assert (await desk.accept()).event is None


async def test_a_job_is_accepted_also_when_the_key_cannot_be_settled() -> None:
    desk = Desk()
    desk.claims.broken = {"settle"}
    first = await desk.accept()
    with pytest.raises(KeyInUseError):
        await desk.accept()
    desk.claims.broken = set()
    desk.claims.expire()
    assert await desk.accept() == Accepted(first.job_id, None)
    with pytest.raises(KeyReusedError):
        await desk.accept(token_id="another")


async def test_the_lease_is_renewed_while_the_recording_arrives_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.001)
    desk = Desk()
    slow = File(waits=True)
    uploading = asyncio.create_task(desk.accept(slow))
    desk.claims.broken = {"renew"}  # an outage does not end the renewals
    async with asyncio.timeout(LIMIT_SECONDS):
        while desk.claims.renewals < 3:
            desk.claims.renewed.clear()
            await desk.claims.renewed.wait()
    slow.go_on.set()
    await uploading
    assert not [task for task in asyncio.all_tasks() if "Idempotency._renew" in repr(task.get_coro())]


async def test_what_cannot_be_freed_ends_with_its_own_error() -> None:
    desk = Desk()
    desk.claims.broken = {"free"}
    with pytest.raises(ValueError, match="a broken form"):
        await desk.accept(File(error=ValueError("a broken form")))


async def test_of_many_at_once_one_makes_the_job() -> None:
    desk = Desk()
    answers = await asyncio.gather(*(desk.accept() for _ in range(20)), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, Accepted) and answer.event]
    assert len(made) == 1
    assert all(isinstance(answer, Accepted | KeyInUseError) for answer in answers)
    assert len(desk.jobs.kept) == 1


async def test_a_key_is_kept_as_its_hash() -> None:
    desk = Desk()
    await desk.accept()
    assert set(desk.claims.kept) == {hashlib.sha256(KEY.encode()).hexdigest()}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (f'"{KEY}"', KEY),
        (KEY, KEY),
        (f"  {KEY}\t", KEY),
        ('"x"', "x"),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        (r'"a\"b\\c"', r"a\"b\c".replace(r"\"", '"')),
        ("a=b;c", "a=b;c"),
        ('a"b', 'a"b'),
    ],
)
def test_a_quoted_and_a_bare_key_are_understood(header: str, key: str) -> None:
    assert parsed_key([header]) == key


@pytest.mark.parametrize(
    "headers",
    [
        [""],
        [" "],
        ['""'],
        ['"'],
        ['"a'],
        ['a b"', "x"],
        ["a b"],
        ['"a b"'],
        [r'"a\b"'],
        ["x" * 256],
        [f'"{"x" * 256}"'],
        ["키"],
        ["a\x7f"],
        ["a", "a"],
    ],
)
def test_what_is_no_key_is_refused(headers: list[str]) -> None:
    with pytest.raises(InvalidKeyError):
        parsed_key(headers)


def test_no_header_is_no_key() -> None:
    assert parsed_key([]) is None


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=255))
def test_any_visible_characters_can_be_quoted(key: str) -> None:
    quoted = key.replace("\\", r"\\").replace('"', r"\"")
    assert parsed_key([f'"{quoted}"']) == key
