"""Idempotency-Key: one key makes one job, whoever dies, however many come at once."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import BackEndError
from contracts import events
from contracts.addresses import CatalogueAddresses
from contracts.events import JsonObject
from gateway.references.references import References
from gateway.uploads import idempotency
from gateway.uploads.idempotency import (
    Accepted,
    Idempotency,
    InvalidKeyError,
    JobGoneError,
    KeyInUseError,
    KeyReusedError,
    parsed_key,
)
from gateway.uploads.submissions import Dubbed, Submissions
from tests.support.gateway_stores import Bucket, Claims, Jobs
from tests.support.references import Decoder, Records, Tokens
from tests.support.waiting import until_true
from tests.unit import stories

REDRIVE_AFTER = timedelta(seconds=60)
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
BYTES = b"RIFF and more"


class File:
    """A file that arrives when it is let go."""

    filename: str | None = "a.wav"
    metadata: JsonObject | None = None

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


class Desk:
    """The core with its stand-ins."""

    def __init__(self) -> None:
        self.bucket, self.jobs, self.claims, tokens = Bucket(), Jobs(), Claims(), Tokens()
        references = References(tokens, Records(tokens), self.bucket, Decoder(), CatalogueAddresses("sori"))
        self.core = Idempotency(self.claims, self.jobs, Submissions(self.bucket, self.jobs, references, REDRIVE_AFTER))

    async def accept(
        self, file: File | None = None, token_id: str = stories.TOKEN_ID, key: str = KEY, owner: str | None = None
    ) -> Accepted:
        return await self.core.accept(key, Dubbed(token_id, owner, stories.TRACEPARENT), file or File())


async def test_the_same_key_of_another_owner_is_another_key() -> None:
    desk = Desk()
    owners = [None, "user:" + "1" * 32, "user:" + "2" * 32]
    first = [(await desk.accept(owner=owner)).job_id for owner in owners]
    assert len(set(first)) == len(owners)
    assert [await desk.accept(owner=owner) for owner in owners] == [Accepted(job_id, None) for job_id in first]
    assert [job.owner for job in desk.jobs.kept.values()] == owners


async def test_the_same_request_again_is_the_same_job_and_publishes_nothing() -> None:
    desk = Desk()
    first = await desk.accept()
    assert first.event is not None
    assert first.event.subject == first.job_id
    again = await desk.accept()
    assert again == Accepted(first.job_id, None)
    assert len(desk.jobs.kept) == len(desk.bucket.objects) == 1


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
    assert len(desk.jobs.kept) == len(desk.bucket.objects) == 1


async def test_metadata_is_a_part_of_what_a_key_was_used_for() -> None:
    desk = Desk()

    def file(metadata: JsonObject | None) -> File:
        made = File()
        made.metadata = metadata
        return made

    first = await desk.accept(file({"user": 7, "take": None}))
    assert await desk.accept(file({"take": None, "user": 7})) == Accepted(first.job_id, None)
    others: list[JsonObject | None] = [{"user": 8, "take": None}, {"user": 7}, {}, None]
    for other in others:
        with pytest.raises(KeyReusedError):
            await desk.accept(file(other))
    assert len(desk.jobs.kept) == 1


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


@pytest.mark.parametrize("error", [ValueError("a broken form"), asyncio.CancelledError(), BackEndError("S3", "down")])
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
    assert len(desk.jobs.kept) == len(desk.bucket.objects) == 1


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
    event = events.decode((job.upload_received or "").encode())
    assert isinstance(event, events.UploadReceived)
    assert set(desk.bucket.objects) == {event.data.inbox_key}


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
    before = asyncio.all_tasks()
    uploading = asyncio.create_task(desk.accept(slow))
    desk.claims.broken = {"renew"}  # an outage does not end the renewals
    await until_true(lambda: desk.claims.renewals >= 3, "three renewals")
    slow.go_on.set()
    await uploading
    assert asyncio.all_tasks() <= before, "nothing renews it any more"


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
