"""How many requests of one kind run at once, and how many of them may be one client's."""

import tracemalloc
from contextlib import ExitStack

import pytest

from gateway.web.problems import ProblemError
from gateway.web.slots import MAX_READERS, MAX_REFERENCES, MAX_UPLOADS, Slots


def taken(slots: Slots, held: ExitStack, client: str, count: int) -> str | None:
    """Take slots; the code of the refusal, None when there was none."""
    for _ in range(count):
        try:
            held.enter_context(slots.taken(client))
        except ProblemError as error:
            return error.kind.code
    return None


@pytest.mark.parametrize("limit", [MAX_UPLOADS, MAX_READERS, MAX_REFERENCES])
def test_one_client_takes_three_quarters_and_leaves_the_rest_to_others(limit: int) -> None:
    slots = Slots(limit)
    with ExitStack() as held:
        assert taken(slots, held, "slow", limit * 3 // 4) is None
        assert taken(slots, held, "slow", 1) == "too_many_at_once"
        for number in range(limit - limit * 3 // 4):
            assert taken(slots, held, f"other {number}", 1) is None
        assert taken(slots, held, "one more", 1) == "busy"
    with ExitStack() as held:
        assert taken(slots, held, "slow", limit * 3 // 4) is None, "all slots were given back"


def test_two_that_take_all_they_can_leave_some_to_a_third() -> None:
    slots = Slots(MAX_UPLOADS)
    with ExitStack() as held:
        for _ in range(MAX_UPLOADS):
            taken(slots, held, "a", 1)
            taken(slots, held, "b", 1)
        assert taken(slots, held, "c", 10) is None


def test_a_refusal_says_when_to_come_again_and_ends_the_connection_if_asked() -> None:
    slots = Slots(1)
    with slots.taken("a"):
        with pytest.raises(ProblemError) as same, slots.taken("a", close=True):
            pass
        with pytest.raises(ProblemError) as other, slots.taken("b"):
            pass
    assert (same.value.kind.status, same.value.close, same.value.headers) == (429, True, {"Retry-After": "5"})
    assert (other.value.kind.status, other.value.close) == (503, False)
    with slots.taken("b"):
        pass


def test_clients_that_have_left_take_no_memory() -> None:
    slots = Slots(MAX_UPLOADS)
    tracemalloc.start()
    try:
        for number in range(5000):
            with slots.taken(f"192.0.2.{number}"):
                pass
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 50_000
