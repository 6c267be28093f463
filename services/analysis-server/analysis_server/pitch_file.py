"""Reads a pitch.json file: times and the pitch at each."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from analysis_server.errors import UnusableFileError

HIGHEST_HZ = 2000.0
"""No voice is higher; even a whistle is hardly higher."""


class _Point(BaseModel):
    """One point; other fields are ignored."""

    model_config = ConfigDict(strict=True)

    time: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    hz: Annotated[float, Field(ge=0, le=HIGHEST_HZ, allow_inf_nan=False)] | None


_POINTS = TypeAdapter(list[_Point])


def read(path: Path, end_s: float) -> tuple[list[float], list[float | None]]:
    """Return the times in seconds, ascending and `end_s` at most, and the pitch in Hz at each, None where unvoiced.

    The file is `[{"time": s, "hz": number or null}, …]`; 0 Hz means unvoiced, as Praat writes it.

    Raises UnusableFileError `malformed` or `without_voice`.
    """
    try:
        points = _POINTS.validate_json(path.read_bytes())
    except ValidationError:
        text = 'It is not of the form [{"time": seconds, "hz": number or null}, …].'
        raise UnusableFileError("malformed", text) from None
    times = [point.time for point in points]
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise UnusableFileError("malformed", "Its times do not ascend.")
    if not any(point.hz for point in points):
        raise UnusableFileError("without_voice", "It has no pitch in it.")
    if times[-1] > end_s:
        raise UnusableFileError("malformed", "It goes on after the end of the reference.")
    return times, [point.hz or None for point in points]
