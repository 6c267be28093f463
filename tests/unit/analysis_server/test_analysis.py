"""The result object as a whole: a recording's file in, what the webhook brings out."""

import json
import subprocess
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis_server.analysis import analyse
from analysis_server.job import Script
from tests.support.recordings import speech, wav, wav_of_size

SENTENCE = "The quick brown fox jumps over the lazy dog."
MEASURED = [
    "duration_s",
    "loudness_lufs",
    "intensity_mean_db",
    "voiced_share",
    "syllables",
    "speaking_rate_syllables_per_s",
    "pitch_range",
    "pitch_contour",
    "intensity_contour",
]
ALIGNED = ["words", "phones", "overall_score", "scores", "word_analysis", "pitch", "summary"]


def result_of(folder: Path, content: bytes, script: str | None = None) -> dict[str, Any]:
    path = folder / "recording"
    path.write_bytes(content)
    result = analyse(path, [Script(1, 0, 0, script)] if script else [], None, 3600)
    assert [name for name in [*MEASURED, *ALIGNED, "warnings"] if name in result] == list(result)
    assert None not in result.values()
    json.dumps(result, allow_nan=False)
    return result


def codes(result: dict[str, Any]) -> list[str]:
    assert all(warning["text"].endswith(".") or ":" in warning["text"] for warning in result["warnings"])
    return [warning["code"] for warning in result["warnings"]]


def silence(seconds: float) -> bytes:
    header = wav(seconds, 1)[:44]
    return header + bytes(int(seconds * 16_000) * 2)


def test_a_spoken_sentence_is_measured_and_aligned(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech(SENTENCE, voice="en-us"), SENTENCE)
    assert result["warnings"] == []
    assert 2.3 < result["duration_s"] < 3.5
    assert -30 < result["loudness_lufs"] < -10
    assert 60 < result["intensity_mean_db"] < 85
    assert 0.4 < result["voiced_share"] < 0.9
    assert result["syllables"] == pytest.approx(11, abs=1)
    assert result["speaking_rate_syllables_per_s"] == pytest.approx(
        result["syllables"] / result["duration_s"], abs=0.01
    )
    assert [word["word"] for word in result["words"]] == SENTENCE.rstrip(".").split()
    assert all(0 <= w["start_s"] < w["end_s"] <= result["duration_s"] for w in result["words"] + result["phones"])


def test_pitch_and_its_contour_agree(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech(SENTENCE, voice="en-us"))
    pitch, contour = result["pitch_range"], result["pitch_contour"]
    voiced = [value for value in contour["values_hz"] if value is not None]
    assert pitch["min_hz"] == min(voiced)
    assert pitch["max_hz"] == max(voiced)
    assert pitch["median_hz"] == pytest.approx(np.median(voiced), abs=0.1)
    assert pitch["min_hz"] <= pitch["p05_hz"] <= pitch["median_hz"] <= pitch["p95_hz"] <= pitch["max_hz"]
    assert len(voiced) / len(contour["values_hz"]) == pytest.approx(result["voiced_share"], abs=0.001)
    assert len(contour["times_s"]) == len(contour["values_hz"])


def test_a_tone_of_220_hz_is_found_within_2_hz(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    samples = 10_000 * np.sin(2 * np.pi * 220 * np.arange(3 * 44_100) / 44_100)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 44_100, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    pitch = analyse(path, [], None, 3600)["pitch_range"]
    assert pitch["median_hz"] == pytest.approx(220, abs=2)
    assert pitch["max_hz"] - pitch["min_hz"] < 4


def test_without_a_script_there_are_no_times_and_no_warning_about_them(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech(SENTENCE))
    assert list(result) == [*MEASURED, "pitch", "warnings"]
    assert result["warnings"] == []


def test_silence_is_silent_and_nothing_is_found_in_it(tmp_path: Path) -> None:
    result = result_of(tmp_path, silence(20), SENTENCE)
    assert result["duration_s"] == 20
    assert result["voiced_share"] == 0
    assert set(result) == {
        "duration_s",
        "voiced_share",
        "overall_score",
        "scores",
        "word_analysis",
        "summary",
        "warnings",
    }
    assert result["overall_score"] == 0
    assert codes(result) == ["no_voice_found", "alignment_failed"]


@pytest.mark.parametrize("samples", [1, 10, 500, 1000, 3000, 8000])
def test_a_very_short_recording_leaves_out_what_it_is_too_short_for(samples: int, tmp_path: Path) -> None:
    result = result_of(tmp_path, wav_of_size(44 + 2 * samples, 7), SENTENCE)
    assert result["duration_s"] == pytest.approx(samples / 16_000, abs=0.001)
    assert "recording_too_short" in codes(result)
    assert "speaking_rate_syllables_per_s" not in result
    assert ("loudness_lufs" in result) == (samples >= 6400)
    assert ("intensity_mean_db" in result) == (samples >= 2080)
    assert {"script_does_not_match", "alignment_failed"} & set(codes(result))


def test_a_script_of_another_language_costs_the_times_and_nothing_else(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech(SENTENCE), "안녕하세요 여러분")
    assert codes(result) == ["script_language_unsupported"]
    assert "words" not in result
    assert "phones" not in result
    assert result["pitch_range"]["median_hz"] > 75


def test_a_script_that_does_not_fit_says_so_and_scores_next_to_nothing(tmp_path: Path) -> None:
    script = "Ask not what your country can do for you; ask what you can do for your country."
    result = result_of(tmp_path, speech(SENTENCE), script)
    assert codes(result) in (["script_does_not_match"], ["alignment_failed"])
    assert result["overall_score"] < 15


def test_a_script_that_covers_little_of_the_voice_does_not_match(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech(" ".join([SENTENCE] * 4), voice="en-us"), "fox")
    assert codes(result) == ["script_does_not_match"]


def test_korean_speech_is_measured(tmp_path: Path) -> None:
    result = result_of(tmp_path, speech("안녕하세요. 오늘은 날씨가 아주 좋습니다.", voice="ko"))
    assert "pitch_range" in result
    assert result["syllables"] == pytest.approx(16, abs=4)


# VmHWM and not getrusage, whose peak a child starts with at its parent's.
_MEASURED = """
import json, re, sys
from pathlib import Path
from analysis_server.analysis import analyse
from analysis_server.job import Script
peak_kib = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak_kib()
result = analyse(Path(sys.argv[1]), [Script(1, 0, 0, "hello")], None, 3600)
grown = peak_kib() - before
print(json.dumps({"bytes": len(json.dumps(result)), "grown_kib": grown, "duration_s": result["duration_s"]}))
"""


def test_an_hour_takes_little_memory_and_gives_a_small_result(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    voice = np.frombuffer(wav(20, 3, rate=8000)[44:], dtype="<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        for _ in range(60):  # mostly pauses, in which Praat has little to do: the test is of memory, not of patience
            file.writeframes(voice.tobytes() + bytes(2 * 40 * 8000))
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(path)], check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)
    assert measured["duration_s"] == 3600
    assert measured["bytes"] < 200_000
    assert measured["grown_kib"] < 100 * 1024  # the hour itself is 461 MB as the floats that Praat takes
