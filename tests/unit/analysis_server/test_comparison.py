"""What is said of a recording beside its reference, and what is left unsaid when parts of either are not known."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_server.analysis import analyse
from analysis_server.comparison import compare
from analysis_server.job import Script
from analysis_server.listening import listen
from analysis_server.summary import summarise
from analysis_server.voice import DamagedVoiceError, Spoken, Voice
from tests.validation.sounds import as_wav, pitched, spoken

FIRST, SECOND = "I never said that she stole my money.", "Winter is coming."
SCRIPTS = [Script(7, 0.0, 2.0, FIRST), Script(9, 2.0, 3.5, SECOND)]
BOTH = f"{FIRST} {SECOND}"


def written(folder: Path, content: bytes) -> Path:
    path = folder / "recording"
    path.write_bytes(content)
    return path


def analysed(folder: Path, content: bytes, reference: Voice | None, scripts: list[Script]) -> dict[str, Any]:
    result = analyse(written(folder, content), scripts, reference, 60)
    json.dumps(result, allow_nan=False)
    assert None not in result.values()
    return result


@pytest.fixture(scope="module")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Voice:
    path = written(tmp_path_factory.mktemp("actor"), as_wav(spoken(BOTH, "en-us")))
    voice, warnings = listen(path, SCRIPTS, 60)
    assert warnings == []
    return Voice.from_bytes(voice.to_bytes())


@pytest.fixture(scope="module")
def learner(actor: Voice, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return analysed(tmp_path_factory.mktemp("learner"), as_wav(spoken(BOTH, "en-gb")), actor, SCRIPTS)


def test_every_word_of_the_scripts_is_analysed_in_both_voices(learner: dict[str, Any]) -> None:
    words = learner["word_analysis"]
    assert [word["word"] for word in words] == BOTH.replace(".", "").split()
    assert [word["script_id"] for word in words] == [7] * 8 + [9] * 3
    assert {word["script"] for word in words} == {FIRST, SECOND}
    for word in words:
        assert word["matched"] is True
        assert -8 < word["likelihood_ratio"] <= 0
        assert 0.2 < word["mfcc_similarity"] <= 1
        assert 30 < word["score"] <= 100
        for side in ("reference", "recording"):
            assert word[side]["start_s"] < word[side]["end_s"]


def test_the_overall_score_is_the_weighted_mean_of_the_scores(learner: dict[str, Any]) -> None:
    scores = {name: score["score"] for name, score in learner["scores"].items()}
    assert set(scores) == {"pronunciation", "timing", "pitch"}
    expected = 0.6 * scores["pronunciation"] + 0.2 * scores["timing"] + 0.2 * scores["pitch"]
    assert learner["overall_score"] == pytest.approx(expected, abs=0.1)
    assert all(score["method"] for score in learner["scores"].values())


def test_both_pitches_stand_on_the_recordings_time_axis_around_their_own_medians(learner: dict[str, Any]) -> None:
    pitch = learner["pitch"]
    assert len(pitch["times_s"]) == len(pitch["recording_semitones"]) == len(pitch["reference_semitones"])
    assert None in pitch["recording_semitones"]
    assert None in pitch["reference_semitones"]
    recorded = [value for value in pitch["recording_semitones"] if value is not None]
    assert np.median(recorded) == pytest.approx(0, abs=0.05)
    assert pitch["times_s"][-1] <= learner["duration_s"]


def test_a_pitch_shift_hardly_matters_and_an_inverted_melody_does(actor: Voice, tmp_path: Path) -> None:
    sound = spoken(BOTH, "en-us")
    shifted = analysed(tmp_path, as_wav(pitched(sound, "self*2^(4/12)")), actor, SCRIPTS)
    inverted = analysed(tmp_path, as_wav(pitched(sound, "mean*mean/self")), actor, SCRIPTS)
    assert shifted["scores"]["pitch"]["score"] > 90
    assert inverted["scores"]["pitch"]["score"] < 5
    assert "where the actor's" in inverted["summary"]["en"]
    assert "where the actor's" not in shifted["summary"]["en"]


def test_a_reference_without_scripts_is_compared_by_its_sound_alone(actor: Voice, tmp_path: Path) -> None:
    heard, _ = listen(written(tmp_path, as_wav(spoken(BOTH, "en-us"))), [], 60)
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), heard, [])
    assert "word_analysis" not in result
    assert {name: score["score"] for name, score in result["scores"].items()} == {
        "pronunciation": 100,
        "timing": 100,
        "pitch": 100,
    }
    assert "MFCC" in result["scores"]["pronunciation"]["method"]


def test_scripts_without_a_reference_are_judged_by_their_words_alone(tmp_path: Path) -> None:
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), None, SCRIPTS)
    assert set(result["scores"]) == {"pronunciation"}
    assert "reference_semitones" not in result["pitch"]
    for word in result["word_analysis"]:
        assert {"reference", "mfcc_similarity"}.isdisjoint(word)
        assert word["matched"]


def test_korean_scripts_are_compared_by_sound_and_by_a_marked_references_words(actor: Voice, tmp_path: Path) -> None:
    marked = actor.with_words([Spoken("안녕하세요", 0.1, 1.0), Spoken("여러분", 1.0, 1.9)], [])
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), marked, [Script(1, 0, 2, "안녕하세요 여러분")])
    assert [warning["code"] for warning in result["warnings"]] == ["script_language_unsupported"]
    assert result["overall_score"] >= 95
    for word, start in zip(result["word_analysis"], (0.1, 1.0), strict=True):
        assert {"matched", "likelihood_ratio"}.isdisjoint(word)
        assert word["recording"]["start_s"] == pytest.approx(start, abs=0.02)
        assert word["mfcc_similarity"] == 1


def test_a_reference_of_marked_words_alone_gives_the_timing(tmp_path: Path) -> None:
    heard, _ = listen(written(tmp_path, as_wav(spoken(BOTH, "en-us"))), SCRIPTS, 60)
    marked = Voice(0.0).with_words(heard.words or (), ())
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), marked, SCRIPTS)
    assert result["scores"]["timing"]["score"] == 100
    assert set(result["scores"]) == {"pronunciation", "timing"}


def test_the_reference_is_itself_when_only_its_words_were_marked(actor: Voice, tmp_path: Path) -> None:
    marked = actor.with_words(actor.words or (), ())
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), marked, SCRIPTS)
    assert min(score["score"] for score in result["scores"].values()) >= 95


def test_a_pitch_file_replaces_the_measured_pitch(actor: Voice, tmp_path: Path) -> None:
    assert actor.pitch_hz is not None
    flat = actor.with_pitch([n / 100 for n in range(300)], [120.0] * 300)
    result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us")), flat, SCRIPTS)
    known = [value for value in result["pitch"]["reference_semitones"] if value is not None]
    assert set(known) == {0}
    assert result["scores"]["pitch"]["score"] < 60


@pytest.mark.parametrize("found", [0, 1])
def test_a_reference_that_is_not_of_the_scripts_is_still_compared_with(found: int, actor: Voice) -> None:
    assert actor.words is not None
    assert actor.places is not None
    unfound = replace(actor, words=actor.words[:found], places=actor.places[:found], phones=())
    for recording in (unfound, actor):
        compared = compare(recording, unfound, SCRIPTS)
        assert compared.overall == pytest.approx(100)
        assert compared.words is None


@pytest.mark.parametrize(
    "said", [f"Okay, here I go. {BOTH}", f"{BOTH} Thank you very much, goodbye.", f"I never, {BOTH}", f"{BOTH} {BOTH}"]
)
def test_what_is_said_beside_the_scripts_costs_something_and_not_all(
    said: str, actor: Voice, learner: dict[str, Any], tmp_path: Path
) -> None:
    result = analysed(tmp_path, as_wav(spoken(said, "en-gb")), actor, SCRIPTS)
    assert learner["overall_score"] - 25 < result["overall_score"] < learner["overall_score"]
    assert "words were found" in result["summary"]["en"]
    assert result["warnings"] == []


def test_single_words_found_in_other_speech_are_in_doubt_and_count_for_less(actor: Voice, tmp_path: Path) -> None:
    sound = as_wav(spoken("Please call Stella and ask her to bring these things.", "en-us"))
    result = analysed(tmp_path, sound, actor, SCRIPTS)
    assert result["overall_score"] < 15
    assert [warning["code"] for warning in result["warnings"]] in (["script_does_not_match"], ["alignment_failed"])
    assert "hardly seems" in result["summary"]["en"] or "None of the words" in result["summary"]["en"]


def test_more_words_are_never_less_evidence(actor: Voice) -> None:
    assert actor.words is not None
    evidence = [replace(actor, words=actor.words[:count], places=None).evidence(11) for count in range(12)]
    assert evidence == sorted(evidence)
    assert (evidence[0], evidence[-1]) == (0, 1)


def test_of_what_is_nothing_like_the_reference_the_summary_says_only_that(tmp_path: Path) -> None:
    heard, _ = listen(written(tmp_path, as_wav(spoken(BOTH, "en-us"))), [], 60)
    assert heard.mfcc is not None
    unlike = replace(heard, mfcc=np.random.default_rng(1).normal(0, 100, heard.mfcc.shape))
    assert (summarise(compare(unlike, heard, [])) or {})["en"] == "Your recording sounds nothing like the actor's line."


def test_silence_is_scored_0_with_scripts_and_without(actor: Voice, tmp_path: Path) -> None:
    for scripts in (SCRIPTS, []):
        result = analysed(tmp_path, as_wav(spoken(BOTH, "en-us") * 0), actor, scripts)
        assert result["overall_score"] == 0
        assert set(result["scores"]) == {"pronunciation"}
        assert result["summary"]["en"]


def test_the_summary_names_what_is_missing_and_the_tempo(actor: Voice, tmp_path: Path) -> None:
    said = "I never said that she stole my money. Is coming."
    summary = analysed(tmp_path, as_wav(spoken(said, "en-us", 0.7)), actor, SCRIPTS)["summary"]
    assert "10 of 11 words were found" in summary["en"]
    assert "'Winter'" in summary["en"]
    assert "slower than the actor" in summary["en"]
    assert "느리게" in summary["ko"]


def test_nothing_is_said_where_nothing_is_known() -> None:
    compared = compare(Voice(1.0), None, [])
    assert (compared.words, compared.scores, compared.overall, compared.contours) == (None, {}, None, None)
    assert summarise(compared) is None


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_voice_are_refused(content: bytes) -> None:
    with pytest.raises(DamagedVoiceError):
        Voice.from_bytes(content)


@given(cut=st.integers(1, 2000), flip=st.integers(0, 255))
def test_a_damaged_voice_is_refused_or_read_as_a_voice(cut: int, flip: int, actor: Voice) -> None:
    content = bytearray(actor.to_bytes())
    content[cut] ^= flip
    with contextlib.suppress(DamagedVoiceError):
        assert isinstance(Voice.from_bytes(bytes(content)), Voice)
    with pytest.raises(DamagedVoiceError):
        Voice.from_bytes(bytes(content[:-cut]))
