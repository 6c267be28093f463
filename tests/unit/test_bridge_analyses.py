"""What becomes of a stored recording: cached, asked for, asked for again, given up; and one outcome whatever races."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analyzer_bridge.analyses import LEASE, Analysis, AnalysisStatus, Bridge, Outcome
from analyzer_bridge.errors import AnalysisChangedError, AnalysisRefusedError, AnalysisServerUnavailableError
from contracts.events import (
    AnalysisCompleted,
    AnalysisFailed,
    AnalysisRequested,
    AnalysisWebhookReceived,
    Event,
    JsonObject,
)
from contracts.failures import FailureCode
from tests.unit import stories
from tests.unit.stories import JOB_ID, RESULT, called_back, stored

OTHER_JOB = "00000000-0000-4000-8000-000000000003"
TIMEOUT = timedelta(seconds=600)
SUCCESS: JsonObject = {"status": "success", "result": RESULT}
FAILURE: JsonObject = {"status": "failed", "error": "no speech"}


@dataclass
class Kept:
    """One document of the collection."""

    analysis: Analysis
    announced: bool | None = None


class Analyses:
    """The collection in memory, each change conditional as the real one's; every call lets others in between."""

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}

    async def insert(self, analysis: Analysis) -> bool:
        await asyncio.sleep(0)
        if analysis.job_id in self.kept:
            return False
        self.kept[analysis.job_id] = Kept(analysis)
        return True

    async def find(self, job_id: str) -> Analysis | None:
        await asyncio.sleep(0)
        return self.of(job_id) if job_id in self.kept else None

    async def cached(self, cache_key: str) -> str | None:
        await asyncio.sleep(0)
        done = [kept.analysis for kept in self.kept.values() if kept.analysis.cache_key == cache_key]
        results = [one.outcome.result_json for one in done if one.outcome and one.outcome.result_json is not None]
        return results[0] if results else None

    async def describe(self, analysis: Analysis) -> None:
        await asyncio.sleep(0)
        if kept := self.kept.get(analysis.job_id):
            kept.analysis = replace(analysis, outcome=kept.analysis.outcome)

    async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
        await asyncio.sleep(0)
        kept = self.kept.get(job_id)
        if kept is None or kept.analysis.outcome is not None:
            return None
        kept.analysis, kept.announced = replace(kept.analysis, outcome=outcome), announced
        return kept.analysis

    async def overdue(self, now: datetime, limit: int) -> list[Analysis]:
        await asyncio.sleep(0)
        return [kept.analysis for kept in self.kept.values() if _is_due(kept, now)][:limit]

    async def lease(self, analysis: Analysis, until: datetime) -> bool:
        await asyncio.sleep(0)
        now = self.of(analysis.job_id)
        if now.outcome is not None or now.deadline != analysis.deadline:
            return False
        self.kept[analysis.job_id].analysis = replace(now, deadline=until, leases=now.leases + 1)
        return True

    async def announced(self, job_id: str) -> None:
        await asyncio.sleep(0)
        self.kept[job_id].announced = True

    def of(self, job_id: str = JOB_ID) -> Analysis:
        return self.kept[job_id].analysis

    def pass_deadline(self, job_id: str = JOB_ID) -> Analysis:
        """Make the time of an analysis come."""
        kept = self.kept[job_id]
        assert kept.analysis.deadline is not None
        kept.analysis = replace(kept.analysis, deadline=datetime.now(UTC) - timedelta(seconds=1))
        return kept.analysis


def _is_due(kept: Kept, now: datetime) -> bool:
    deadline = kept.analysis.deadline
    return kept.announced is False or (kept.analysis.outcome is None and deadline is not None and deadline < now)


class Server:
    """The analysis server; `answers` are what its next calls raise, `meanwhile` happens before each answer."""

    def __init__(self, *answers: Exception | None) -> None:
        self.asked: list[tuple[str, str, str, int]] = []
        self.answers = list(answers)
        self.meanwhile: Callable[[], Coroutine[Any, Any, object]] | None = None

    async def request(self, job_id: str, token_id: str, s3_url: str, attempt: int) -> None:
        self.asked.append((job_id, token_id, s3_url, attempt))
        if self.meanwhile:
            await self.meanwhile()
        await asyncio.sleep(0)
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer


class World:
    """A bridge with its stand-ins; `replica` gives another one on the same collection."""

    def __init__(self, *answers: Exception | None, attempts: int = 3) -> None:
        self.analyses = Analyses()
        self.server = Server(*answers)
        self._attempts = attempts
        self.bridge = self.replica()

    def replica(self, version: str = "1") -> Bridge:
        return Bridge(self.analyses, self.server, timeout=TIMEOUT, attempts=self._attempts, version=version)

    async def time_out(self) -> Event | None:
        """Let the deadline pass and the bridge notice."""
        self.analyses.pass_deadline()
        (late,) = await self.bridge.overdue(10)
        return await self.bridge.pursue(late)


def of(event: Event | None) -> tuple[type[Event], object]:
    """What an event says happened, and how."""
    if isinstance(event, AnalysisCompleted):
        return AnalysisCompleted, event.data.result
    if isinstance(event, AnalysisFailed):
        return AnalysisFailed, event.data.code
    assert isinstance(event, AnalysisRequested)
    return AnalysisRequested, event.data.attempt


DONE = (AnalysisCompleted, RESULT)
ASKED = (AnalysisRequested, 1)


def gone(code: FailureCode) -> tuple[type[Event], object]:
    return AnalysisFailed, code


async def test_a_recording_is_asked_for_and_its_deadline_runs() -> None:
    world = World()
    event = await world.bridge.begin(stored())
    assert of(event) == ASKED
    assert world.server.asked == [(JOB_ID, stories.TOKEN_ID, stories.S3_URL, 1)]
    deadline = world.analyses.of().deadline
    assert isinstance(event, AnalysisRequested)
    assert event.data.deadline == deadline
    assert deadline is not None
    assert TIMEOUT - timedelta(seconds=60) < deadline - datetime.now(UTC) <= TIMEOUT
    assert event.trace_id == stories.TRACE_ID


async def test_a_webhook_before_the_requests_own_answer_finds_its_analysis() -> None:
    world, heard = World(), list[Event | None]()

    async def call_back() -> None:
        heard.append(await world.replica().finish(called_back(SUCCESS)))

    world.server.meanwhile = call_back
    assert of(await world.bridge.begin(stored())) == ASKED
    assert [of(event) for event in heard] == [DONE]
    assert of(await world.bridge.begin(stored())) == DONE


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (SUCCESS, DONE),
        ({"job_id": "17", "status": "completed", "analysis_results": RESULT}, DONE),
        (FAILURE, gone(FailureCode.ANALYSIS_FAILED)),
        (None, gone(FailureCode.RESULT_TOO_LARGE)),
        ({"status": "completed", "result": [1]}, gone(FailureCode.RESULT_INVALID)),
    ],
)
async def test_a_webhook_concludes_the_analysis(body: JsonObject | None, expected: tuple[type[Event], object]) -> None:
    world = World()
    await world.bridge.begin(stored())
    event = await world.bridge.finish(called_back(body))
    assert of(event) == expected
    assert isinstance(event, AnalysisCompleted | AnalysisFailed)
    assert (event.data.token_id, event.data.s3_url) == (stories.TOKEN_ID, stories.S3_URL)
    assert (event.subject, event.trace_id) == (JOB_ID, stories.TRACE_ID)


@pytest.mark.parametrize("second", [SUCCESS, FAILURE, None, {"status": "success", "result": {"another": 1}}])
async def test_a_later_webhook_changes_nothing_and_the_recorded_outcome_is_told_again(
    second: JsonObject | None,
) -> None:
    world = World()
    await world.bridge.begin(stored())
    first = await world.bridge.finish(called_back(SUCCESS))
    again = await world.bridge.finish(called_back(second))
    assert first is not None
    assert again is not None
    assert (again.id, again.data) == (first.id, first.data)


async def test_a_webhook_that_overtakes_its_recording_waits_for_it() -> None:
    world = World()
    assert await world.bridge.finish(called_back(SUCCESS)) is None
    event = await world.bridge.begin(stored())
    assert of(event) == DONE
    assert isinstance(event, AnalysisCompleted)
    assert event.data.s3_url == stories.S3_URL
    assert world.server.asked == []
    assert of(await world.bridge.finish(called_back(SUCCESS))) == DONE


async def test_a_webhook_is_tried_again_when_the_analysis_was_begun_between_two_looks() -> None:
    world = World()

    class Between(Analyses):
        async def conclude(self, job_id: str, outcome: Outcome, *, announced: bool) -> Analysis | None:
            concluded = await super().conclude(job_id, outcome, announced=announced)
            await self.insert(Analysis(job_id=job_id, traceparent=stories.TRACEPARENT))
            return concluded

    world.analyses = Between()
    with pytest.raises(AnalysisChangedError):
        await world.replica().finish(called_back(SUCCESS))
    assert world.analyses.of().outcome is None


async def test_the_same_bytes_for_the_same_token_are_answered_from_the_cache() -> None:
    world = World()
    await done_for_another_job(world, SUCCESS)
    event = await world.bridge.begin(stored())
    assert of(event) == DONE
    assert isinstance(event, AnalysisCompleted)
    assert event.data.cached
    assert len(world.server.asked) == 1
    assert of(await world.bridge.begin(stored())) == DONE, "a redelivery says the same"
    assert of(await world.bridge.finish(called_back(FAILURE))) == DONE, "nobody was asked, so nobody can contradict"


async def done_for_another_job(world: World, body: JsonObject) -> None:
    await world.bridge.begin(stored(OTHER_JOB))
    await world.bridge.finish(
        AnalysisWebhookReceived.model_validate(called_back(body).model_dump() | {"subject": OTHER_JOB})
    )


@pytest.mark.parametrize(
    ("sha256", "token_id", "version"),
    [("0" * 64, stories.TOKEN_ID, "1"), (stories.SHA256, "other", "1"), (stories.SHA256, stories.TOKEN_ID, "2")],
    ids=["other bytes", "another token", "another analysis server"],
)
async def test_anything_else_is_not_answered_from_the_cache(sha256: str, token_id: str, version: str) -> None:
    world = World()
    await done_for_another_job(world, SUCCESS)
    event = await world.replica(version).begin(stored(digest=sha256, token_id=token_id))
    assert of(event) == ASKED
    assert len(world.server.asked) == 2


async def test_a_failure_is_not_cached() -> None:
    world = World()
    await done_for_another_job(world, FAILURE)
    assert of(await world.bridge.begin(stored())) == ASKED


async def test_parts_of_the_cache_key_cannot_be_mistaken_for_one_another() -> None:
    world = World()
    await world.replica("ab").begin(stored(OTHER_JOB, token_id="a"))
    await world.replica("b").begin(stored(token_id="aa"))
    keys = {kept.analysis.cache_key for kept in world.analyses.kept.values()}
    assert len(keys) == 2


async def test_however_often_the_same_bytes_come_one_document_answers_for_them() -> None:
    """Looking one up must not become slower, or larger, with every upload of the same file."""
    world = World()
    await done_for_another_job(world, SUCCESS)
    for number in range(5):
        await world.bridge.begin(stored(f"00000000-0000-4000-8000-00000000010{number}"))
    keys = [kept.analysis.cache_key for kept in world.analyses.kept.values() if kept.analysis.cache_key]
    assert len(keys) == 1


async def test_a_redelivery_while_the_analysis_runs_asks_again_with_the_same_attempt() -> None:
    world = World()
    first = await world.bridge.begin(stored())
    again = await world.bridge.begin(stored())
    assert again.id == first.id
    assert [asked[3] for asked in world.server.asked] == [1, 1]


async def test_a_redelivery_after_the_end_tells_the_outcome_again_and_asks_nobody() -> None:
    world = World()
    await world.bridge.begin(stored())
    ended = await world.bridge.finish(called_back(SUCCESS))
    again = await world.bridge.begin(stored())
    assert ended is not None
    assert (again.id, of(again)) == (ended.id, DONE)
    assert len(world.server.asked) == 1


async def test_a_refusal_fails_the_job_at_once() -> None:
    world = World(AnalysisRefusedError("answered 400"))
    assert of(await world.bridge.begin(stored())) == gone(FailureCode.ANALYSIS_REFUSED)
    assert of(await world.bridge.begin(stored())) == gone(FailureCode.ANALYSIS_REFUSED)
    assert len(world.server.asked) == 1


async def test_a_refusal_after_the_webhook_loses_to_it() -> None:
    world = World(AnalysisRefusedError("answered 400"))
    world.server.meanwhile = lambda: world.replica().finish(called_back(SUCCESS))
    assert of(await world.bridge.begin(stored())) == DONE


async def test_while_the_server_is_away_no_deadline_runs_and_a_retry_starts_it() -> None:
    world = World(AnalysisServerUnavailableError("answered 503", 7.0))
    with pytest.raises(AnalysisServerUnavailableError) as away:
        await world.bridge.begin(stored())
    assert away.value.retry_after == 7.0
    assert world.analyses.of().deadline is None
    assert of(await world.bridge.begin(stored())) == ASKED
    assert world.analyses.of().deadline is not None
    assert world.analyses.of().attempt == 1


async def test_a_webhook_that_comes_although_the_request_failed_counts() -> None:
    """As when the connection was cut after the server had taken the recording on."""
    world = World(AnalysisServerUnavailableError("ReadTimeout"))
    with pytest.raises(AnalysisServerUnavailableError):
        await world.bridge.begin(stored())
    assert of(await world.bridge.finish(called_back(SUCCESS))) == DONE
    assert of(await world.bridge.begin(stored())) == DONE


async def test_nothing_is_overdue_before_its_time() -> None:
    world = World()
    await world.bridge.begin(stored())
    assert await world.bridge.overdue(10) == []


async def test_an_overdue_analysis_is_asked_for_again_and_given_new_time() -> None:
    world = World()
    first = await world.bridge.begin(stored())
    again = await world.time_out()
    assert of(again) == (AnalysisRequested, 2)
    assert again is not None
    assert again.id != first.id
    assert [asked[3] for asked in world.server.asked] == [1, 2]
    assert world.analyses.of().attempt == 2
    assert await world.bridge.overdue(10) == []


async def test_after_its_last_attempt_an_analysis_is_given_up() -> None:
    world = World(attempts=3)
    await world.bridge.begin(stored())
    assert [of(await world.time_out()) for _ in range(3)] == [
        (AnalysisRequested, 2),
        (AnalysisRequested, 3),
        gone(FailureCode.ANALYSIS_TIMED_OUT),
    ]
    assert len(world.server.asked) == 3
    assert of(await world.bridge.finish(called_back(SUCCESS))) == gone(FailureCode.ANALYSIS_TIMED_OUT)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_webhook_of_any_attempt_concludes_an_analysis_that_was_asked_for_again(attempt: int) -> None:
    world = World()
    await world.bridge.begin(stored())
    await world.time_out()
    assert of(await world.bridge.finish(called_back(SUCCESS, attempt))) == DONE


async def test_only_one_replica_asks_again() -> None:
    world = World()
    await world.bridge.begin(stored())
    late = world.analyses.pass_deadline()
    events = await asyncio.gather(*(world.replica().pursue(late) for _ in range(4)))
    assert [of(event) for event in events if event] == [(AnalysisRequested, 2)]
    assert [asked[3] for asked in world.server.asked] == [1, 2]


async def test_only_one_replica_gives_up() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored())
    late = world.analyses.pass_deadline()
    events = await asyncio.gather(*(world.replica().pursue(late) for _ in range(4)))
    assert [of(event) for event in events if event] == [gone(FailureCode.ANALYSIS_TIMED_OUT)]


async def test_a_webhook_that_comes_just_before_an_analysis_is_given_up_wins() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored())
    late = world.analyses.pass_deadline()
    await world.bridge.finish(called_back(SUCCESS))
    assert await world.bridge.pursue(late) is None
    assert of(await world.bridge.begin(stored())) == DONE


async def test_a_webhook_while_the_analysis_is_asked_for_again_stands() -> None:
    world = World()
    await world.bridge.begin(stored())
    late = world.analyses.pass_deadline()
    world.server.meanwhile = lambda: world.replica().finish(called_back(SUCCESS))
    await world.bridge.pursue(late)
    outcome = world.analyses.of().outcome
    assert outcome is not None
    assert outcome.status == AnalysisStatus.COMPLETED
    assert await world.bridge.overdue(10) == []


async def test_a_refusal_when_asked_again_fails_the_job() -> None:
    world = World(None, AnalysisRefusedError("answered 410"))
    await world.bridge.begin(stored())
    assert of(await world.time_out()) == gone(FailureCode.ANALYSIS_REFUSED)


async def test_a_server_that_is_away_when_asked_again_is_asked_later() -> None:
    world = World(None, AnalysisServerUnavailableError("ConnectError"))
    await world.bridge.begin(stored())
    assert await world.time_out() is None
    deadline = world.analyses.of().deadline
    assert deadline is not None
    assert timedelta() < deadline - datetime.now(UTC) <= LEASE
    assert of(await world.time_out()) == (AnalysisRequested, 2)


async def test_a_server_that_stays_away_is_not_asked_for_ever() -> None:
    world = World(None, *[AnalysisServerUnavailableError("ConnectError")] * 1000)
    await world.bridge.begin(stored())
    for _ in range(500):
        if event := await world.time_out():
            break
    assert of(event) == gone(FailureCode.ANALYSIS_TIMED_OUT)


async def test_an_outcome_whose_announcement_was_cut_short_is_announced_by_the_next_look() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored())
    event = await world.time_out()
    (unannounced,) = await world.replica().overdue(10)
    again = await world.replica().pursue(unannounced)
    assert event is not None
    assert again is not None
    assert (again.id, of(again)) == (event.id, gone(FailureCode.ANALYSIS_TIMED_OUT))
    await world.bridge.announced(again)
    assert await world.bridge.overdue(10) == []


async def test_that_an_analysis_was_asked_for_again_is_no_outcome_to_note() -> None:
    world = World()
    event = await world.bridge.begin(stored())
    await world.bridge.announced(event)
    assert world.analyses.kept[JOB_ID].announced is None


@pytest.mark.parametrize("seed", range(200))
async def test_whatever_races_one_outcome_stands_and_no_other_is_told(seed: int) -> None:
    chance = random.Random(seed)
    refused = [AnalysisRefusedError("answered 400")] if chance.random() < 0.3 else []
    world = World(*[None] * chance.randrange(3), *refused, attempts=chance.randrange(1, 3))

    async def pursue_what_is_late() -> list[Event]:
        if JOB_ID in world.analyses.kept and world.analyses.of().deadline and chance.random() < 0.8:
            world.analyses.pass_deadline()
        bridge = world.replica()
        pursued = [await bridge.pursue(late) for late in await bridge.overdue(10)]
        return [event for event in pursued if event]

    async def handle(body: JsonObject | None) -> list[Event]:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        try:
            event = await world.replica().finish(called_back(body))
        except AnalysisChangedError:
            event = await world.replica().finish(called_back(body))
        return [event] if event else []

    async def begin() -> list[Event]:
        return [await world.replica().begin(stored())]

    work = [begin(), begin(), handle(SUCCESS), handle(FAILURE), handle(None), *[pursue_what_is_late() for _ in "abc"]]
    chance.shuffle(work)
    told = [event for events in await asyncio.gather(*work) for event in events]
    # A redelivery at the end, as after a crash, tells what stands.
    standing = await world.bridge.begin(stored())
    ends = {(event.id, str(event.data)) for event in told if not isinstance(event, AnalysisRequested)}
    assert ends <= {(standing.id, str(standing.data))}
    outcome = world.analyses.of().outcome
    assert outcome is not None
    assert of(standing) == (DONE if outcome.result_json is not None else gone(outcome.code or FailureCode.NOT_AUDIO))
