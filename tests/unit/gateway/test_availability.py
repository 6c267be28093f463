"""Asking back ends before a request is read: at once, together, and not more often than needed."""

import asyncio
import time

import pytest

from chassis.errors import AwayError
from gateway import availability
from gateway.availability import Availability

LIMIT_SECONDS = 5.0


class BackEnd:
    """Answers as it is told: True, False, an error; or not at all."""

    def __init__(self, answer: bool | Exception | None = True) -> None:
        self.answer = answer
        self.asked = 0
        self.begun = asyncio.Event()
        self.hangs = asyncio.Event()

    async def is_up(self) -> bool:
        self.asked += 1
        self.begun.set()
        await asyncio.sleep(0)
        if self.answer is None:
            await self.hangs.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)


def of(**back_ends: BackEnd) -> Availability:
    return Availability({name: back_end.is_up for name, back_end in back_ends.items()})


async def test_back_ends_that_answer_let_requests_through() -> None:
    await of(s3=BackEnd(), mongodb=BackEnd()).require("s3", "mongodb")


@pytest.mark.parametrize("answer", [False, ConnectionError("refused")])
async def test_one_that_does_not_answer_is_named(answer: bool | Exception) -> None:
    with pytest.raises(AwayError) as refused:
        await of(s3=BackEnd(), mongodb=BackEnd(answer)).require("s3", "mongodb")
    assert refused.value.back_end == "mongodb"


async def test_only_what_a_request_needs_is_asked() -> None:
    s3 = BackEnd(answer=False)
    await of(s3=s3, mongodb=BackEnd()).require("mongodb")
    assert s3.asked == 0


async def test_those_that_hang_are_given_up_together_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "CHECK_SECONDS", 0.05)
    began = time.monotonic()
    with pytest.raises(AwayError):
        await of(s3=BackEnd(None), mongodb=BackEnd(None), rabbitmq=BackEnd(None)).require("s3", "mongodb", "rabbitmq")
    assert time.monotonic() - began < 0.14


@pytest.mark.parametrize("answer", [True, False])
async def test_requests_that_come_together_share_one_question(answer: bool) -> None:
    back_end = BackEnd(answer)
    asked = of(s3=back_end)
    outcomes = await asyncio.gather(*(asked.require("s3") for _ in range(50)), return_exceptions=True)
    assert back_end.asked == 1
    assert [outcome is None for outcome in outcomes] == [answer] * 50


async def test_an_answer_counts_for_a_while() -> None:
    back_end = BackEnd()
    asked = of(s3=back_end)
    for _ in range(50):
        await asked.require("s3")
    assert back_end.asked == 1


async def test_an_outage_that_is_over_is_over_for_the_next_request() -> None:
    back_end = BackEnd(answer=False)
    asked = of(s3=back_end)
    with pytest.raises(AwayError):
        await asked.require("s3")
    back_end.answer = True
    await asked.require("s3")


async def test_what_was_known_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "REMEMBERED_SECONDS", 0.0)
    back_end = BackEnd()
    asked = of(s3=back_end)
    await asked.require("s3")
    back_end.answer = False
    with pytest.raises(AwayError):
        await asked.require("s3")
    back_end.answer = True
    await asked.require("s3")


async def test_a_request_that_is_cancelled_does_not_take_the_question_from_the_others() -> None:
    back_end = BackEnd(None)
    asked = of(s3=back_end)
    gone, stays = (asyncio.create_task(asked.require("s3")) for _ in range(2))
    async with asyncio.timeout(LIMIT_SECONDS):
        await back_end.begun.wait()
        gone.cancel()
        await asyncio.wait([gone])
        back_end.answer = True
        back_end.hangs.set()
        await stays
    assert back_end.asked == 1


async def test_a_back_end_that_was_seen_at_work_is_not_asked() -> None:
    back_end = BackEnd(answer=False)
    asked = of(s3=back_end)
    asked.seen("s3")
    await asked.require("s3")
    assert back_end.asked == 0


async def test_work_that_was_done_meanwhile_says_more_than_a_check_that_was_too_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(availability, "CHECK_SECONDS", 0.05)
    back_end = BackEnd(None)
    asked = of(s3=back_end)
    waiting = asyncio.create_task(asked.require("s3"))
    async with asyncio.timeout(LIMIT_SECONDS):
        await back_end.begun.wait()
        asked.seen("s3")
        await waiting
