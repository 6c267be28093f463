"""Reads a pitch.json file: times and the pitch at each."""

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, FailFast, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from analysis_server.errors import UnusableFileError
from contracts.json_text import without_lone_surrogates

HIGHEST_HZ = 2000.0
"""No voice is higher; even a whistle is hardly higher."""

_MAX_POINTS = 200_000  # one each 18 ms for an hour, or each millisecond for three minutes
_TOUCH_S = 0.001  # programs round times, so that a later one may seem to be earlier
_UNDEFINED = {"", "nan", "none", "null", "na", "n/a", "--undefined--"}  # of csv.DictReader, R, Praat


def _number(value: Any) -> Any:
    """Return the number that a string holds: tables that become JSON often hold nothing but strings."""
    if isinstance(value, bool):
        raise ValueError("a truth value")  # noqa: TRY004 - the validation makes an error of a ValueError alone
    return float(value) if isinstance(value, str) else value


def _pitch(value: Any) -> Any:
    """Return a pitch in Hz, or None for what programs write where there is no voice.

    That is null, NaN (librosa), an infinity, 0 (Praat, WORLD), or a negative number (REAPER, and pYIN's Vamp plug-in).
    """
    if isinstance(value, str) and value.strip().lower() in _UNDEFINED:
        return None
    hz = _number(value)
    return None if isinstance(hz, int | float) and not 0 < hz < math.inf else hz


@dataclass(slots=True)
class _Point:
    """One point; other fields are ignored. With slots, since there may be many."""

    time: Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
    hz: Annotated[Annotated[float, Field(le=HIGHEST_HZ)] | None, BeforeValidator(_pitch)]


_POINTS = TypeAdapter(Annotated[list[_Point], Field(max_length=_MAX_POINTS), FailFast()])


def read(path: Path, end_s: float) -> tuple[list[float], list[float | None]]:
    """Return the times in seconds, ascending and `end_s` at most, and the pitch in Hz at each, None where unvoiced.

    The file is `[{"time": s, "hz": number or null}, …]` in UTF-8, UTF-16 or UTF-32, up to 200,000 points. Of points at
    the same time the last one that is voiced counts. Unvoiced points after `end_s` are left out.

    Raises UnusableFileError `malformed` or `without_voice`.
    """
    points = _points(path.read_bytes())
    if any(later.time < earlier.time - _TOUCH_S for earlier, later in pairwise(points)):
        raise UnusableFileError("malformed", "Its times do not ascend.")
    pitch = _by_time(points)
    if not any(pitch.values()):
        raise UnusableFileError("without_voice", "It has no pitch in it.")
    times = sorted(time for time, hz in pitch.items() if hz is not None or time <= end_s)
    if times[-1] > end_s:
        raise UnusableFileError("malformed", "It goes on after the end of the reference.")
    return times, [pitch[time] for time in times]


def _points(content: bytes) -> list[_Point]:
    try:
        return _validated(content.decode(json.detect_encoding(content)))
    except ValidationError as error:
        if error.errors()[0]["type"] == "too_long":
            raise UnusableFileError("malformed", f"It has more than {_MAX_POINTS} points.") from None
        raise _not_of_the_form() from None
    except UnicodeDecodeError:
        raise _not_of_the_form() from None


def _validated(text: str) -> list[_Point]:
    try:
        return _POINTS.validate_json(text)
    except ValidationError as error:
        if error.errors()[0]["type"] != "json_invalid":
            raise
    return _POINTS.validate_json(without_lone_surrogates(text))


def _not_of_the_form() -> UnusableFileError:
    return UnusableFileError("malformed", 'It is not of the form [{"time": seconds, "hz": number or null}, …].')


def _by_time(points: Iterable[_Point]) -> dict[float, float | None]:
    found: dict[float, float | None] = {}
    for point in points:
        found[point.time] = point.hz if point.hz is not None else found.get(point.time)
    return found
