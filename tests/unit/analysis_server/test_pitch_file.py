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
    "unvoiced",
    [
        *("null", "NaN", "Infinity", "-Infinity", "0", "0.0", "-1", "-220.5"),
        *('"nan"', '"NA"', '"N/A"', '""', '"--undefined--"'),
    ],
)
def test_whatever_programs_write_where_there_is_no_voice_is_none(tmp_path: Path, unvoiced: str) -> None:
    content = f'[{{"time": 0, "hz": 220}}, {{"time": 0.01, "hz": {unvoiced}}}]'
    assert parsed(tmp_path, content) == ([0, 0.01], [220, None])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_any_encoding_of_json_is_read_with_and_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    content = '[{"time": 0, "hz": 220, "note": "소리"}]'.encode(encoding)
    assert parsed(tmp_path, content) == ([0], [220])


@pytest.mark.parametrize("note", [r"\ud83d", r"\ude00\ud83d", r"\ud83d\ude00", r"\\ud83d"])
def test_a_lone_surrogate_in_another_member_is_passed_over(tmp_path: Path, note: str) -> None:
    assert parsed(tmp_path, f'[{{"time": 0, "hz": 220, "note": "{note}"}}]') == ([0], [220])


def test_unvoiced_points_after_the_end_are_left_out(tmp_path: Path) -> None:
    content = '[{"time": 9, "hz": 220}, {"time": 10, "hz": null}, {"time": 10.01, "hz": null}, {"time": 11, "hz": 0}]'
    assert parsed(tmp_path, content, end_s=10) == ([9, 10], [220, None])


def test_numbers_in_strings_are_read(tmp_path: Path) -> None:
    assert parsed(tmp_path, '[{"time": "0.01", "hz": "220.5"}]') == ([0.01], [220.5])


def test_of_points_at_the_same_time_the_last_voiced_one_counts(tmp_path: Path) -> None:
    points = [(0, 100), (1, 200), (1, 210), (1, None), (2, None)]
    content = json.dumps([{"time": time, "hz": hz} for time, hz in points])
    assert parsed(tmp_path, content) == ([0, 1, 2], [100, 210, None])


def test_times_that_rounding_brought_out_of_order_are_sorted(tmp_path: Path) -> None:
    assert parsed(tmp_path, '[{"time": 1, "hz": 220}, {"time": 0.9995, "hz": 221}]') == ([0.9995, 1], [221, 220])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "malformed"),
        ("time,hz\n0,220\n", "malformed"),
        ('{"time": 0, "hz": 220}', "malformed"),
        ("[[0, 220]]", "malformed"),
        ('[{"time": 0}]', "malformed"),
        ('[{"hz": 220}]', "malformed"),
        ('[{"time": true, "hz": 220}]', "malformed"),
        ('[{"time": null, "hz": 220}]', "malformed"),
        ('[{"time": 0, "hz": 22000}]', "malformed"),
        ('[{"time": 0, "hz": true}]', "malformed"),
        ('[{"time": 0, "hz": "high"}]', "malformed"),
        ('[{"time": 0, "hz": ' + "9" * 400 + "}]", "malformed"),
        ('[{"time": NaN, "hz": 220}]', "malformed"),
        ('[{"time": "nan", "hz": 220}]', "malformed"),
        ("[" + ",".join(['{"time":0,"hz":1}'] * 200_001) + "]", "malformed"),
        ('[{"time": -1, "hz": 220}]', "malformed"),
        ('[{"time": Infinity, "hz": 220}]', "malformed"),
        ('[{"time": 11, "hz": 220}]', "malformed"),
        ('[{"time": 2, "hz": 220}, {"time": 1, "hz": 220}]', "malformed"),
        ('[{"time": 0, "hz": 220}', "malformed"),
        (b"\xff\xfe[", "malformed"),
        ("[" * 100_000, "malformed"),
        ("[]", "without_voice"),
        ('[{"time": 0, "hz": null}, {"time": 1, "hz": 0}, {"time": 2, "hz": NaN}]', "without_voice"),
    ],
    ids=range(24),
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, content: str | bytes, fault: str) -> None:
    with pytest.raises(UnusableFileError) as refused:
        parsed(tmp_path, content)
    assert refused.value.fault == fault
    assert refused.value.sentence.endswith(".")
