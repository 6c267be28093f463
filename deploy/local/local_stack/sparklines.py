"""Series of numbers, drawn as one line of bars."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TypeGuard

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 44


def sparkline(values: Sequence[float | None], width: int = WIDTH) -> str:
    """The values as a line of at most `width` bars, each the mean of its share; a blank where there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    low, span = min(known), max(known) - min(known)
    means = [_mean(share) for share in _shares(values, width)]
    return "".join(" " if mean is None else BARS[round((mean - low) / (span or 1) * (len(BARS) - 1))] for mean in means)


def is_series(value: object) -> TypeGuard[list[float | None]]:
    """Whether it is a list of numbers, some of which may be missing."""
    if not isinstance(value, list):
        return False
    return any(is_number(item) for item in value) and all(item is None or is_number(item) for item in value)


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, as JSON has them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shares(values: Sequence[float | None], width: int) -> Iterable[Sequence[float | None]]:
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    return [values[start:end] for start, end in pairwise(edges)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
