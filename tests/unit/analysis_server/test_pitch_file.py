"""The field's pitch.json, and the broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis_server.errors import UnusableFileError
from analysis_server.pitch_file import read


def parsed(folder: Path, content: str | bytes, end_s: float = 10.0) -> tuple[list[float], list[float | None]]:
    path = folder / "pitch.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path, end_s)


def test_times_and_pitches_are_read_and_0_hz_is_none(tmp_path: Path) -> None:
    points: list[dict[str, Any]] = [
        {"time": 0, "hz": None},
        {"time": 0.01, "hz": 220.5, "strength": 0.9},
        {"time": 0.02, "hz": 0},
        {"time": 0.035, "hz": 180},
    ]
    assert parsed(tmp_path, json.dumps(points)) == ([0, 0.01, 0.02, 0.035], [None, 220.5, None, 180])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "malformed"),
        ("time,hz\n0,220\n", "malformed"),
        ('{"time": 0, "hz": 220}', "malformed"),
        ("[[0, 220]]", "malformed"),
        ('[{"time": 0}]', "malformed"),
        ('[{"hz": 220}]', "malformed"),
        ('[{"time": "0", "hz": 220}]', "malformed"),
        ('[{"time": true, "hz": 220}]', "malformed"),
        ('[{"time": null, "hz": 220}]', "malformed"),
        ('[{"time": 0, "hz": "220"}]', "malformed"),
        ('[{"time": 0, "hz": NaN}]', "malformed"),
        ('[{"time": 0, "hz": 1e999}]', "malformed"),
        ('[{"time": 0, "hz": -220}]', "malformed"),
        ('[{"time": 0, "hz": 22000}]', "malformed"),
        ('[{"time": -1, "hz": 220}]', "malformed"),
        ('[{"time": Infinity, "hz": 220}]', "malformed"),
        ('[{"time": 11, "hz": 220}]', "malformed"),
        ('[{"time": 1, "hz": 220}, {"time": 1, "hz": 220}]', "malformed"),
        ('[{"time": 2, "hz": 220}, {"time": 1, "hz": 220}]', "malformed"),
        ('[{"time": 0, "hz": 220}', "malformed"),
        (b"\xff\xfe[", "malformed"),
        ("[" * 100_000, "malformed"),
        ("[]", "without_voice"),
        ('[{"time": 0, "hz": null}, {"time": 1, "hz": 0}]', "without_voice"),
    ],
    ids=range(24),
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes, fault: str) -> None:
    with pytest.raises(UnusableFileError) as refused:
        parsed(tmp_path, content)
    assert refused.value.fault == fault
    assert refused.value.sentence.endswith(".")
