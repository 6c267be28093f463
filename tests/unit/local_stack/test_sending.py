"""How `send` follows a job and shows its result, against a server that says what the test wants."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from local_stack.errors import SendFailedError
from local_stack.rendering import render_job, render_result
from local_stack.sending import Job, Sori, recording_at
from local_stack.sparklines import sparkline
from tests.support.scripted_server import Answer, ScriptedServer, problem, said

JOB = "73732cad-5149-44d4-a954-e9c4781635c3"


def state(progress: int, status: str = "processing", stage: str = "storing") -> Job:
    return {"job_id": JOB, "status": status, "stage": stage, "progress": progress, "message": "업로드 시작"}


def event(number: int, job: Job) -> bytes:
    return f"id: {number}\ndata: {json.dumps(job)}\n\n".encode()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    running = ScriptedServer()
    yield running
    running.stop()


def sori(server: ScriptedServer) -> Sori:
    return Sori(server.url, pause_seconds=0)


def stream(*events: bytes) -> Answer:
    return 200, "text/event-stream", b"retry: 100\n\n" + b"".join(events)


def text_of(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_job_is_followed_to_its_end(server: ScriptedServer) -> None:
    server.answers = [stream(event(1, state(10)), b": heartbeat\n\n", event(2, state(100, "completed", "done")))]
    assert [job["progress"] for job in sori(server).follow(JOB)] == [10, 100]


def test_a_stream_that_breaks_off_is_taken_up_where_it_was(server: ScriptedServer) -> None:
    server.answers = [
        stream(event(7, state(40))),
        problem(502, "upstream_unavailable"),
        stream(event(8, state(100, "failed"))),
    ]
    assert [job["progress"] for job in sori(server).follow(JOB)] == [40, 100]
    assert [request.last_event_id for request in server.requests] == [None, "7", "7"]


def test_a_held_job_is_not_waited_for(server: ScriptedServer) -> None:
    server.answers = [stream(event(1, state(40, stage="held")))]
    assert [job["stage"] for job in sori(server).follow(JOB)] == ["held"]


def test_an_unknown_job_ends_the_following_with_the_servers_words(server: ScriptedServer) -> None:
    server.answers = [problem(404, "job_not_found")]
    with pytest.raises(SendFailedError, match=r"Because\. \(job_not_found\)"):
        list(sori(server).follow(JOB))


def test_an_upload_is_a_form_with_the_file(server: ScriptedServer) -> None:
    server.answers = [(202, "application/json", json.dumps({"job_id": JOB}).encode())]
    assert sori(server).upload("a b.wav", io.BytesIO(b"RIFF"), "token/1")["job_id"] == JOB
    path, body = server.requests[0].path, server.requests[0].body
    assert path == "/tokens/token%2F1/upload-audio"
    assert b'name="file"; filename="a b.wav"' in body
    assert b"\r\n\r\nRIFF\r\n" in body


@pytest.mark.parametrize(("credential", "header"), [("", None), ("sori_abc", "Bearer sori_abc")])
def test_every_call_says_who_calls_if_that_is_known(
    server: ScriptedServer, credential: str, header: str | None
) -> None:
    accepted = (202, "application/json", json.dumps({"job_id": JOB}).encode())
    server.answers = [accepted, stream(event(1, state(100, "completed", "done"))), said([])]
    caller = Sori(server.url, pause_seconds=0, credential=credential)
    caller.upload("a.wav", io.BytesIO(b"RIFF"))
    list(caller.follow(JOB))
    caller.tokens()
    assert [request.authorization for request in server.requests] == [header] * 3


def test_who_has_to_log_in_is_told_how(server: ScriptedServer) -> None:
    server.answers = [problem(401, "login_required")]
    with pytest.raises(SendFailedError, match=r"\(login_required\) .*SORI_TOKEN"):
        sori(server).upload("a.wav", io.BytesIO(b"RIFF"))


def test_a_credential_that_cannot_be_one_is_refused_by_the_server(server: ScriptedServer) -> None:
    server.answers = [problem(401, "token_invalid")]
    with pytest.raises(SendFailedError, match="token_invalid"):
        Sori(server.url, credential="…").upload("a.wav", io.BytesIO(b"RIFF"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (problem(413, "upload_too_large"), r"Because\. \(upload_too_large\)"),
        ((500, "text/html", b"<html>"), r"The server answered 500\. \(500\)"),
    ],
)
def test_a_refused_upload_says_why(server: ScriptedServer, answer: Answer, words: str) -> None:
    server.answers = [answer]
    with pytest.raises(SendFailedError, match=words):
        sori(server).upload("a.wav", io.BytesIO(b"RIFF"))


def test_a_stack_that_is_down_is_said_so() -> None:
    with pytest.raises(SendFailedError, match="is the stack still up"):
        Sori("http://127.0.0.1:9").upload("a.wav", io.BytesIO(b"RIFF"))


@pytest.mark.parametrize(("name", "words"), [("none.wav", "There is no file none.wav"), ("", "make send FILE=path")])
def test_a_file_that_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(SendFailedError, match=words):
        recording_at(Path(name))


def test_a_line_of_bars_follows_the_values_and_is_blank_where_there_are_none() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, None, None, 2]) == "▁  █"
    assert sparkline([5, 5, 5]) == "▁▁▁"
    assert sparkline([None, None]) == ""


def test_a_long_line_of_bars_has_the_mean_of_each_share() -> None:
    assert sparkline([0.0] * 500 + [10.0] * 500, width=10) == "▁▁▁▁▁█████"


def test_a_result_is_shown_whatever_is_in_it() -> None:
    result = {
        "duration_s": 1.25,
        "pitch": {"median_hz": 120.5, "note": None},
        "contour": {"times_s": [0.0, 0.5, 1.0], "values_hz": [100.0, None, 140.0]},
        "words": [{"word": "hello", "start_s": 0.1}, {"word": "[bold]", "end_s": 0.9}],
        "warnings": [],
        "strange": [1, "two", {"three": 3}],
    }
    text = text_of(render_result(result))
    for shown in ("1.25", "pitch.median_hz", "120.5", "▁ █", "100 … 140, 3 values", "hello", "[bold]", "none", "two"):
        assert shown in text
    assert text.count("▁") == 1, "times need no picture"


def test_a_long_table_says_how_much_it_leaves_out() -> None:
    text = text_of(render_result({"words": [{"word": f"w{n}"} for n in range(100)]}))
    assert "the first 40 of 100" in text
    assert "w39" in text
    assert "w40" not in text


@pytest.mark.parametrize(
    ("job", "shown"),
    [
        ({**state(100, "completed", "done"), "result": {"ok": True}}, ("Result", "True")),
        (
            {**state(40, "failed", "done"), "error": {"code": "not_audio", "message": "못 읽음"}},
            ("Failed", "못 읽음", "not_audio"),
        ),
        (state(40, stage="held"), ("Held", "업로드 시작", "make logs")),
        (state(40, "cancelled", "done"), ("Cancelled", "업로드 시작")),
    ],
)
def test_each_end_of_a_job_is_told(job: Job, shown: tuple[str, ...]) -> None:
    text = text_of(render_job(job))
    assert all(words in text for words in shown)


def test_the_progress_ends_in_an_error_when_the_stack_is_gone_for_good(server: ScriptedServer) -> None:
    server.answers = [problem(502, "upstream_unavailable")] * 30
    with pytest.raises(SendFailedError, match="progress cannot be read"):
        list(sori(server).follow(JOB))
    assert len(server.requests) == 21
