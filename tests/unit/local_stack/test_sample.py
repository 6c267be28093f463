"""The sample that `make run` loads, records and shows: into whose catalogue it goes, and how a comparison is read."""

import io
import json
import wave
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local_stack import sample
from local_stack.errors import StackError
from local_stack.rendering import render_result
from local_stack.sample import CATALOGUE
from local_stack.sending import DEFAULT_TOKEN, Sori
from sorictl import json_files
from sorictl.rows import File
from tests.support.scripted_server import ScriptedServer, problem, said

SAMPLE = json.loads(CATALOGUE.read_text())
ONE, TWO = SAMPLE["tokens"]
HEARD = {"reference_audio_url": "s3://sori/references/1/a"}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    running = ScriptedServer()
    yield running
    running.stop()


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where the sample was imported to; nothing is."""
    urls: list[str] = []
    monkeypatch.setattr(sample, "import_catalogue", urls.append)
    return urls


def test_the_sample_can_be_imported_and_its_lines_fit_into_their_tokens() -> None:
    assert File(json_files.read(CATALOGUE.read_text())).problems == []
    for token in SAMPLE["tokens"]:
        scripts = [script for script in SAMPLE["scripts"] if script["token_id"] == token["id"]]
        times = [token["start_time"], *(script[at] for script in scripts for at in ("start_time", "end_time"))]
        assert all(before < after for before, after in pairwise([*times, token["end_time"]]))


def test_an_empty_catalogue_gets_the_sample_and_its_reference_audio(
    server: ScriptedServer, imports: list[str], tmp_path: Path
) -> None:
    tokens = [said(ONE), said(TWO), said(ONE), said(ONE), said(TWO), said(TWO)]
    server.answers = [said([]), *tokens]
    assert sample.load(Sori(server.url), "mongodb://here/sori", tmp_path) == "1"
    assert imports == ["mongodb://here/sori"]
    uploads = [request for request in server.requests if request.method == "PUT"]
    assert [request.path for request in uploads] == ["/tokens/1/reference-audio", "/tokens/2/reference-audio"]
    assert all(b"RIFF" in request.body for request in uploads)


def test_what_the_run_before_has_left_is_used_as_it_is(
    server: ScriptedServer, imports: list[str], tmp_path: Path
) -> None:
    heard = {**ONE, **HEARD}
    server.answers = [said([heard]), said(heard), problem(404, "token_not_found"), said(heard)]
    assert sample.load(Sori(server.url), "mongodb://here/sori", tmp_path) == "1"
    assert imports == []
    assert {request.method for request in server.requests} == {"GET"}


def test_a_catalogue_of_somebodys_own_is_left_alone(
    server: ScriptedServer, imports: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {**ONE, "token_name": "mine"}
    server.answers = [said([own]), said(own), problem(404, "token_not_found")]
    assert sample.load(Sori(server.url), "mongodb://here/sori", tmp_path) == DEFAULT_TOKEN
    assert imports == []
    assert {request.method for request in server.requests} == {"GET"}
    assert "stays as it is" in capsys.readouterr().out


def test_a_database_that_is_away_is_told_by_sorictls_own_words(server: ScriptedServer, tmp_path: Path) -> None:
    server.answers = [said([])]
    with pytest.raises(StackError, match="could not be loaded") as failed:
        sample.load(Sori(server.url), "http://no-database/", tmp_path)
    assert "MONGODB_URL" in failed.value.details[0]


def test_a_recording_has_the_length_of_its_token_and_is_new_each_time(tmp_path: Path) -> None:
    made = [sample.recording(tmp_path).read_bytes() for _ in range(2)]
    assert made[0] != made[1]
    with wave.open(str(tmp_path / "sample.wav")) as file:
        seconds = file.getnframes() / file.getframerate()
    assert seconds == pytest.approx(ONE["end_time"] - ONE["start_time"], abs=0.1)
    assert [path.name for path in tmp_path.iterdir()] == ["sample.wav"]


WORDS = [
    {
        **{"word": "Ask", "script_id": 1, "script": "Ask not.", "matched": True, "score": 88.4},
        **{"recording": {"start_s": 0.2, "end_s": 0.5}, "reference": {"start_s": 0.1, "end_s": 0.45}},
    },
    {"word": "[bold]", "script_id": 1, "script": "Ask not.", "matched": False, "score": 0},
]
COMPARISON: dict[str, Any] = {
    "overall_score": 77.3,
    "scores": {"pronunciation": {"score": 80.1, "method": "by ear"}, "timing": {"score": 59.0}},
    "word_analysis": WORDS,
    "pitch": {"times_s": [0, 1, 2], "recording_semitones": [0, None, 7.0], "reference_semitones": [-3.0, 0, 3.0]},
    "summary": {"en": "The end is missing.", "ko": "끝이 없습니다."},
    "words": [{"word": "heard-twice"}],
    "duration_s": 6.5,
    "warnings": [{"code": "one", "text": "left out"}],
}


def text_of(result: dict[str, Any], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render_result(result))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_comparison_is_shown_in_the_order_in_which_people_ask() -> None:
    text = text_of(COMPARISON)
    wanted = ("77 of 100", "The end is missing.", "끝이 없습니다.", "pronunciation", "by ear", "timing", "Ask not.")
    words = ("Ask", "88", "0.20 … 0.50 s", "0.10 … 0.45 s", "[bold]", "not found")
    rest = ("▁ █", "+0 … +7", "▁▅█", "duration_s", "warnings", "left out")
    places = [text.index(part) for part in (*wanted, *words, *rest)]
    assert places == sorted(places)
    assert "heard-twice" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    "strange",
    [
        {"overall_score": "high"},
        {"scores": {"pronunciation": 80}},
        {"word_analysis": [{"no": "word"}]},
        {"word_analysis": [{"word": 1, "recording": "soon", "score": None, "script": None}]},
        {"pitch": {"min_hz": 80.0}},
        {"pitch": {"recording_semitones": [None]}},
        {"summary": "all in one"},
        {"summary": {"en": 1}},
        {"scores": {}, "word_analysis": [], "pitch": {}, "summary": {}},
    ],
)
def test_what_is_no_comparison_of_ours_is_shown_like_any_result(strange: dict[str, Any]) -> None:
    assert all(name in text_of(strange) for name in strange if strange[name] and name != "word_analysis")
    assert text_of(COMPARISON | strange)
