"""Questions that are asked together: each gets its own answer, and none waits for company."""

import asyncio

import pytest

from chassis.batches import MOST, Batches


class Squares:
    """Answers in a moment; `asked` are the batches, and the number 13 is more than it can do."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, numbers: list[int]) -> list[int]:
        self.asked.append(numbers)
        await self.gate.wait()
        if 13 in numbers:
            raise ConnectionError("no")
        return [number * number for number in numbers]


@pytest.fixture
def squares() -> Squares:
    return Squares()


@pytest.fixture
def batches(squares: Squares) -> Batches[int, int]:
    return Batches(squares.ask)


async def test_a_question_that_comes_alone_is_asked_at_once(batches: Batches[int, int], squares: Squares) -> None:
    assert await batches.answer(3) == 9
    assert await batches.answer(4) == 16
    assert squares.asked == [[3], [4]]


async def test_what_comes_together_is_asked_together_and_each_gets_its_own_answer(
    batches: Batches[int, int], squares: Squares
) -> None:
    assert await asyncio.gather(*(batches.answer(number) for number in range(10))) == [n * n for n in range(10)]
    assert squares.asked == [list(range(10))]


async def test_what_comes_while_a_batch_is_under_way_is_the_next(batches: Batches[int, int], squares: Squares) -> None:
    squares.gate.clear()
    first = asyncio.create_task(batches.answer(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    later = [asyncio.create_task(batches.answer(number)) for number in (2, 3)]
    await asyncio.sleep(0)
    squares.gate.set()
    assert await asyncio.gather(first, *later) == [1, 4, 9]
    assert squares.asked == [[1], [2, 3]]


async def test_a_batch_has_a_limit(batches: Batches[int, int], squares: Squares) -> None:
    numbers = [number for number in range(3 * MOST) if number != 13]
    assert await asyncio.gather(*(batches.answer(number) for number in numbers)) == [n * n for n in numbers]
    assert max(len(asked) for asked in squares.asked) == MOST


async def test_a_failure_is_told_to_all_who_asked_and_is_over_with_the_next_batch(
    batches: Batches[int, int], squares: Squares
) -> None:
    outcomes = await asyncio.gather(*(batches.answer(number) for number in (1, 13)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ConnectionError, ConnectionError]
    assert await batches.answer(2) == 4


async def test_somebody_who_no_longer_waits_does_not_harm_the_others(
    batches: Batches[int, int], squares: Squares
) -> None:
    squares.gate.clear()
    tasks = [asyncio.create_task(batches.answer(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    squares.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert (outcomes[0], type(outcomes[1]), outcomes[2]) == (1, asyncio.CancelledError, 9)
    assert await batches.answer(5) == 25


async def test_what_the_driver_cancels_fails_and_holds_up_nothing() -> None:
    """As when a connection dies under a batch: the questions after it are asked all the same."""

    async def ask(numbers: list[int]) -> list[int]:
        if 1 in numbers:
            raise asyncio.CancelledError
        return numbers

    batches = Batches(ask)
    with pytest.raises(ConnectionError):
        await batches.answer(1)
    assert await batches.answer(2) == 2
