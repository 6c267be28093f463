"""Calling the analysis server: what each answer means, how much it is asked at once, and that it is left alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from analyzer_bridge import analysis_server, retry_after
from analyzer_bridge.analysis_server import FAILURES, OPEN_REQUESTS, AnalysisServerClient
from analyzer_bridge.errors import (
    AnalysisNotTakenError,
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from analyzer_bridge.settings import Settings
from contracts.events import Reference
from tests.support.waiting import until_true
from tests.unit.stories import JOB_ID, REFERENCE, S3_URL, TOKEN_ID

LOOPBACK = "127.0.0.1"


class Remote:
    """An analysis server that answers as it is told; `open` requests wait until `going` is set."""

    def __init__(self) -> None:
        self.asked = self.open = self.most = 0
        self.forms: list[dict[str, str]] = []
        self.status = 200
        self.retry_after: str | None = None
        self.going = asyncio.Event()
        self.going.set()
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self.going.wait()
        finally:
            self.open -= 1
        if not self.status:
            assert request.transport is not None
            request.transport.abort()
        headers = {"Retry-After": self.retry_after} if self.retry_after is not None else {}
        return web.json_response({"status": "processing"}, status=self.status or 500, headers=headers)


@pytest.fixture
async def remote() -> AsyncIterator[Remote]:
    """A server on a port of its own."""
    server = Remote()
    app = web.Application()
    app.router.add_post("/analyze-voice", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    server.port = runner.addresses[0][1]
    yield server
    await runner.cleanup()


@asynccontextmanager
async def calling(port: int) -> AsyncIterator[AnalysisServerClient]:
    """The bridge's side of it."""
    settings = Settings.model_validate(
        {
            "rabbitmq_url": "amqp://broker",
            "mongodb_url": "mongodb://host/sori",
            "target_server_url": f"http://{LOOPBACK}:{port}/analyze-voice",
            "webhook_url": "http://edge/hook",
            "webhook_secret": "a secret of some length",
        }
    )
    async with AnalysisServerClient(settings) as server:
        yield server


async def ask(server: AnalysisServerClient) -> None:
    await server.request(JOB_ID, TOKEN_ID, S3_URL, 1)


async def refusals(server: AnalysisServerClient, count: int) -> list[BaseException | None]:
    """What becomes of so many requests in a row."""
    return [(await asyncio.gather(ask(server), return_exceptions=True))[0] for _ in range(count)]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *[(status, AnalysisServerUnavailableError) for status in (0, 502, 504)],
        *[(status, AnalysisServerBusyError) for status in (429, 503)],
        *[(status, AnalysisServerFailedError) for status in (408, 425, 500, 501, 599)],
        *[(status, AnalysisRefusedError) for status in (301, 400, 401, 404, 413, 422)],
    ],
)
async def test_what_an_answer_means(remote: Remote, status: int, error: type[Exception]) -> None:
    async with calling(remote.port) as server:
        await ask(server)
        remote.status = status
        with pytest.raises(error):
            await ask(server)


async def test_a_recording_without_a_reference_is_sent_with_the_fields_that_every_server_knows(
    remote: Remote,
) -> None:
    async with calling(remote.port) as server:
        await ask(server)
        await server.request(JOB_ID, TOKEN_ID, S3_URL, 1, Reference())
    assert [set(form) for form in remote.forms] == [{"s3_audio_url", "webhook_url", "video_id"}] * 2


async def test_what_there_is_of_a_reference_is_sent_along(remote: Remote) -> None:
    known = {"s3_audio_url", "webhook_url", "video_id"}
    async with calling(remote.port) as server:
        await server.request(JOB_ID, TOKEN_ID, S3_URL, 1, REFERENCE)
        for name in ("audio_url", "textgrid_url", "pitch_url"):
            only = Reference.model_validate({name: getattr(REFERENCE, name)})
            await server.request(JOB_ID, TOKEN_ID, S3_URL, 1, only)
        await server.request(JOB_ID, TOKEN_ID, S3_URL, 1, Reference(scripts=REFERENCE.scripts))
    whole, audio, textgrid, pitch, scripts = remote.forms
    assert whole["s3_reference_url"] == REFERENCE.audio_url
    assert whole["s3_textgrid_url"] == REFERENCE.textgrid_url
    assert whole["s3_pitch_url"] == REFERENCE.pitch_url
    assert json.loads(whole["scripts"]) == [
        {"script_id": 11, "start_seconds": 0.25, "end_seconds": 1.5, "script": "You can't handle the truth!"},
        {"script_id": 12, "start_seconds": 2.0, "end_seconds": 3.75, "script": "진실을 감당할 수 없어"},
    ]
    others = [set(form) - known for form in (audio, textgrid, pitch, scripts)]
    assert others == [{"s3_reference_url"}, {"s3_textgrid_url"}, {"s3_pitch_url"}, {"scripts"}]


async def test_a_server_that_does_not_listen_is_unavailable(remote: Remote) -> None:
    async with calling(1) as server:
        with pytest.raises(AnalysisServerUnavailableError):
            await ask(server)


async def test_an_answer_that_takes_too_long_as_a_whole_is_given_up(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_server, "ANSWER_SECONDS", 0.05)
    remote.going.clear()
    async with calling(remote.port) as server:
        with pytest.raises(AnalysisServerUnavailableError, match="TimeoutError"):
            await ask(server)


async def test_only_so_many_requests_are_open_at_once(remote: Remote) -> None:
    remote.going.clear()
    async with calling(remote.port) as server, asyncio.TaskGroup() as group:
        for _ in range(OPEN_REQUESTS + 10):
            group.create_task(ask(server))
        await until_true(lambda: remote.open == OPEN_REQUESTS, "all places taken")
        remote.going.set()
    assert (remote.asked, remote.most) == (OPEN_REQUESTS + 10, OPEN_REQUESTS)


async def test_requests_that_were_given_up_leave_their_places_to_others(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_server, "FAILURES", 10**6)
    monkeypatch.setattr(analysis_server, "ANSWER_SECONDS", 0.05)
    remote.going.clear()
    async with calling(remote.port) as server:
        lost = await asyncio.gather(*(ask(server) for _ in range(3 * OPEN_REQUESTS)), return_exceptions=True)
        assert {type(error) for error in lost} == {AnalysisServerUnavailableError}
        remote.going.set()
        monkeypatch.setattr(analysis_server, "ANSWER_SECONDS", 10)
        await asyncio.gather(*(ask(server) for _ in range(3 * OPEN_REQUESTS)))


async def test_a_server_that_is_away_is_left_alone(remote: Remote) -> None:
    remote.status = 502
    async with calling(remote.port) as server:
        assert server.warnings() == []
        errors = await refusals(server, FAILURES + 20)
        (warning,) = server.warnings()
        assert "is away" in warning
        assert {type(error) for error in errors} == {AnalysisServerUnavailableError}
        assert remote.asked == FAILURES
        assert 0 < server.away_for() <= analysis_server.REST_SECONDS
        last = errors[-1]
        assert isinstance(last, AnalysisNotTakenError)
        assert last.retry_after is not None
        assert 0 < last.retry_after <= analysis_server.REST_SECONDS, "what is left of the rest"


@pytest.mark.parametrize("status", [400, 429, 500, 503])
async def test_a_server_that_answers_is_not_away_whatever_it_answers(remote: Remote, status: int) -> None:
    remote.status = status
    async with calling(remote.port) as server:
        await refusals(server, 4 * FAILURES)
        assert remote.asked == 4 * FAILURES
        assert server.away_for() == 0
        assert server.warnings() == []


async def test_failures_between_which_it_answers_are_no_absence(remote: Remote) -> None:
    async with calling(remote.port) as server:
        for _ in range(3):
            remote.status = 502
            await refusals(server, FAILURES - 1)
            remote.status = 200
            await ask(server)
    assert remote.asked == 3 * FAILURES


@pytest.mark.parametrize("answer", [200, 400, 500, 503])
async def test_after_its_rest_a_few_ask_until_it_answers_and_then_everybody(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    monkeypatch.setattr(analysis_server, "REST_SECONDS", 0.05)
    remote.status = 0
    async with calling(remote.port) as server:
        await refusals(server, FAILURES)
        await until_true(lambda: server.away_for() == 0, "the end of its rest")
        remote.going.clear()
        remote.status, remote.asked, remote.most = answer, 0, 0
        first = [asyncio.create_task(refusals(server, 1)) for _ in range(OPEN_REQUESTS)]
        await until_true(lambda: remote.open == FAILURES, "the first few")
        remote.going.set()
        await asyncio.gather(*first)
        assert remote.most == FAILURES
        remote.going.clear()
        then = [asyncio.create_task(refusals(server, 1)) for _ in range(OPEN_REQUESTS)]
        await until_true(lambda: remote.open == OPEN_REQUESTS, "everybody")
        remote.going.set()
        await asyncio.gather(*then)
        assert server.warnings() == []


async def test_after_its_rest_it_is_left_alone_again_when_it_is_still_away(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis_server, "REST_SECONDS", 0.5)
    remote.status = 502
    async with calling(remote.port) as server:
        await refusals(server, 3 * FAILURES)
        await until_true(lambda: server.away_for() == 0, "the end of its rest")
        await asyncio.gather(*(ask(server) for _ in range(3 * FAILURES)), return_exceptions=True)
    # The few that are asked at once do not all fail at the same moment.
    assert 2 * FAILURES <= remote.asked < 3 * FAILURES


async def test_one_recording_that_it_cannot_bear_does_not_keep_the_others_away(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the rest it fails once more at the same one; another one must get its chance all the same."""
    monkeypatch.setattr(analysis_server, "REST_SECONDS", 0.05)
    remote.status = 0
    async with calling(remote.port) as server:
        await refusals(server, FAILURES)
        await until_true(lambda: server.away_for() == 0, "the end of its rest")
        await refusals(server, 1)
        remote.status = 200
        await ask(server)


@pytest.mark.parametrize(
    ("status", "error", "times_asked"),
    [
        *[(status, AnalysisServerUnavailableError, 1) for status in (502, 504)],
        *[(status, AnalysisServerBusyError, 3) for status in (429, 503)],
    ],
)
@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_the_time_that_it_asks_for_is_told_and_one_that_is_away_is_left_alone_for_it(
    remote: Remote, status: int, error: type[AnalysisNotTakenError], times_asked: int, as_date: bool
) -> None:
    """How much a busy server is asked for is for the room to say."""
    at = datetime.now(UTC) + timedelta(seconds=300)
    remote.status, remote.retry_after = status, format_datetime(at, usegmt=True) if as_date else "300"
    async with calling(remote.port) as server:
        for told in await refusals(server, 3):
            assert isinstance(told, error)
            assert told.retry_after is not None
            assert 290 < told.retry_after <= 300
    assert remote.asked == times_asked


async def test_who_fails_at_one_recording_and_asks_for_time_is_asked_for_others(remote: Remote) -> None:
    remote.status, remote.retry_after = 500, "300"
    async with calling(remote.port) as server:
        (error,) = await refusals(server, 1)
        assert isinstance(error, AnalysisServerFailedError)
        assert error.retry_after == 300
        assert server.away_for() == 0


def waits(value: str) -> float | None:
    return retry_after.seconds_asked_for(value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (" 7 ", 7),
        ("9" * 5000, retry_after.LONGEST_REST),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("Friday, 31-Dec-99 23:59:59 GMT", 0),
        ("Fri Dec 31 23:59:59 1999", 0),
        ("Fri, 31 Dec 2099 23:59:59 GMT", retry_after.LONGEST_REST),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Fri, 99 Dec 2099 23:59:59 GMT", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("Fri, 31 Dec 2099 23:59:59 +99999999999999999999", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", retry_after.LONGEST_REST),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
    ],
)
def test_retry_after_is_understood_in_either_form(value: str, seconds: float | None) -> None:
    assert waits(value) == seconds


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60))
def test_no_retry_after_makes_trouble(value: str) -> None:
    seconds = waits(value)
    assert seconds is None or 0 <= seconds <= retry_after.LONGEST_REST
