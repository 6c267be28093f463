"""What a worker makes of a reference's files, whole and broken."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from analysis_server.job import Part, Script
from analysis_server.omissions import Warnings
from analysis_server.reference import understand
from analysis_server.voice import Spoken, Voice
from tests.support.recordings import speech, wav

SENTENCE = "The quick brown fox jumps over the lazy dog."
TEXTGRID = """File type = "ooTextFile"
Object class = "TextGrid"

0
1
<exists>
1
"IntervalTier"
"words"
0
1
2
0
0.4
"The"
0.4
1
"quick"
"""
PITCH = json.dumps([{"time": at / 100, "hz": 321.0} for at in range(100)])


def understood(folder: Path, **parts: bytes | str) -> tuple[Voice | None, Warnings]:
    files: dict[Part, Path] = {}
    for part in ("reference", "textgrid", "pitch"):
        if (content := parts.get(part)) is not None:
            files[part] = folder / part
            files[part].write_bytes(content if isinstance(content, bytes) else content.encode())
    voice, warnings = understand(files, [Script(1, 0, 3, SENTENCE)], 60)
    return (Voice.from_bytes(voice) if voice else None), warnings


def codes(warnings: Warnings) -> list[str]:
    return [warning["code"] for warning in warnings]


def test_what_was_marked_goes_before_what_was_heard(tmp_path: Path) -> None:
    heard, _ = understood(tmp_path, reference=speech(SENTENCE))
    voice, warnings = understood(tmp_path, reference=speech(SENTENCE), textgrid=TEXTGRID, pitch=PITCH)
    assert warnings == []
    assert heard is not None
    assert heard.pitch_hz is not None
    assert voice is not None
    assert voice.pitch_hz is not None
    assert voice.duration_s == heard.duration_s
    assert voice.words == (Spoken("The", 0.0, 0.4), Spoken("quick", 0.4, 1.0))
    assert set(voice.pitch_hz[:95]) == {321.0}
    assert 321.0 not in heard.pitch_hz


@pytest.mark.parametrize(
    ("parts", "left_out"),
    [
        ({"reference": b"", "textgrid": TEXTGRID, "pitch": PITCH}, ["reference_audio_empty"]),
        ({"reference": wav(0, 1), "textgrid": TEXTGRID, "pitch": PITCH}, ["reference_audio_empty"]),
        ({"textgrid": TEXTGRID, "pitch": "[]"}, ["pitch_without_voice"]),
        ({"textgrid": TEXTGRID, "pitch": '[{"time": 0, "hz": 200}, {"time": 1, "hz": 210}]'}, ["pitch_too_sparse"]),
        ({"textgrid": "", "pitch": PITCH}, ["textgrid_malformed"]),
    ],
)
def test_the_other_parts_are_used_when_one_cannot_be(
    tmp_path: Path, parts: Mapping[str, bytes | str], left_out: list[str]
) -> None:
    voice, warnings = understood(tmp_path, **parts)
    assert codes(warnings) == left_out
    assert voice is not None
    assert voice.mfcc is None
    assert (voice.words is None) == ("textgrid_malformed" in left_out)
    assert (voice.pitch_hz is None) == left_out[0].startswith("pitch_")


def test_there_is_no_voice_when_nothing_can_be_used(tmp_path: Path) -> None:
    voice, warnings = understood(tmp_path, reference=b"no audio", textgrid="no TextGrid", pitch="no pitch")
    assert voice is None
    assert codes(warnings) == ["reference_not_audio", "textgrid_malformed", "pitch_malformed"]
    assert all(warning["text"].endswith(".") for warning in warnings)


def test_marks_of_something_else_do_not_stand_in_the_way_of_what_was_heard(tmp_path: Path) -> None:
    other = TEXTGRID.replace("The", "Winter").replace("quick", "comes")
    voice, warnings = understood(tmp_path, reference=speech(SENTENCE), textgrid=other)
    assert codes(warnings) == ["textgrid_not_of_scripts"]
    assert voice is not None
    assert [word.name for word in voice.words or ()] == SENTENCE.removesuffix(".").split()


def test_marks_that_go_on_after_the_sound_are_left_out(tmp_path: Path) -> None:
    voice, warnings = understood(
        tmp_path, reference=speech("Hi."), textgrid=TEXTGRID.replace("\n1\n", "\n9\n"), pitch=PITCH
    )
    assert "textgrid_malformed" in codes(warnings)
    assert voice is not None
    assert "quick" not in [word.name for word in voice.words or ()]


def test_what_is_said_of_the_sound_itself_is_said_as_of_the_reference(tmp_path: Path) -> None:
    _, warnings = understood(tmp_path, reference=wav(0.02, 1))
    assert all(code.startswith("reference_") for code in codes(warnings))
    assert all(warning["text"].startswith("The reference: ") for warning in warnings)
