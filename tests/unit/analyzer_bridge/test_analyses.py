"""What becomes of a stored recording: cached, asked for, asked for again, given up; and one outcome whatever races."""

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analyzer_bridge.analysis import Analysis, AnalysisStatus, Outcome
from analyzer_bridge.bridge import CLOCKS, LEASE, LONGEST_PAUSE_SECONDS, PAUSE_SECONDS
from analyzer_bridge.errors import (
    AnalysisChangedError,
    AnalysisNotTakenError,
    AnalysisRefusedError,
    AnalysisServerBusyError,
    AnalysisServerFailedError,
    AnalysisServerUnavailableError,
)
from chassis.subscribing import Delivery
from contracts.events import (
    AnalysisCompleted,
    AnalysisDelayed,
    AnalysisFailed,
    AnalysisProgressed,
    AnalysisRequested,
    AnalysisWebhookIgnored,
    AnalysisWebhookReceived,
    Event,
    JobCancelled,
    JobExpired,
    JobPurged,
    JsonObject,
    Reference,
)
from contracts.failures import FailureCode
from tests.support.analyses import Analyses
from tests.unit import stories
from tests.unit.analyzer_bridge.bridge_world import AGAIN, FIRST, REDRIVEN, REDRIVEN_AGAIN, TIMEOUT, World
from tests.unit.stories import JOB_ID, REFERENCE, RESULT, called_back, stored

OTHER_JOB = "00000000-0000-4000-8000-00000000000a"
THIRD_JOB = "00000000-0000-4000-8000-00000000000b"
SUCCESS: JsonObject = {"status": "success", "result": RESULT}
FAILURE: JsonObject = {"status": "failed", "error": "no speech"}


def of(event: Event | None) -> tuple[type[Event], object]:
    """What an event says happened, and how."""
    if isinstance(event, AnalysisCompleted):
        return AnalysisCompleted, event.data.result
    if isinstance(event, AnalysisFailed):
        return AnalysisFailed, event.data.code
    if isinstance(event, AnalysisWebhookIgnored):
        return AnalysisWebhookIgnored, event.data.said
    if isinstance(event, AnalysisDelayed):
        return AnalysisDelayed, None
    assert isinstance(event, AnalysisRequested)
    return AnalysisRequested, event.data.attempt


def same(one: Event | None, other: Event | None) -> bool:
    """Whether the second tells what the first did."""
    return one is not None and other is not None and (one.id, one.data) == (other.id, other.data)


NOT_TAKEN = [AnalysisServerUnavailableError("away"), AnalysisServerFailedError("answered 500")]
DONE = (AnalysisCompleted, RESULT)
ASKED = (AnalysisRequested, 1)
WAITS = (AnalysisDelayed, None)


def gone(code: FailureCode) -> tuple[type[Event], object]:
    return AnalysisFailed, code


async def test_a_recording_is_asked_for_and_its_deadline_runs() -> None:
    world = World()
    event = await world.bridge.begin(stored(), FIRST)
    assert of(event) == ASKED
    assert world.server.asked == [(JOB_ID, stories.TOKEN_ID, stories.S3_URL, 1)]
    deadline = world.analyses.of(JOB_ID).deadline
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
    assert of(await world.bridge.begin(stored(), FIRST)) == ASKED
    assert [of(event) for event in heard] == [DONE]
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE


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
    await world.bridge.begin(stored(), FIRST)
    event = await world.bridge.finish(called_back(body))
    assert of(event) == expected
    assert isinstance(event, AnalysisCompleted | AnalysisFailed)
    assert (event.data.token_id, event.data.s3_url) == (stories.TOKEN_ID, stories.S3_URL)
    assert (event.subject, event.trace_id) == (JOB_ID, stories.TRACE_ID)


async def test_an_interim_webhook_tells_of_its_progress_and_ends_nothing() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    before = world.analyses.of(JOB_ID)
    interim = called_back({"status": "processing", "progress": 40})
    event = await world.bridge.finish(interim)
    assert isinstance(event, AnalysisProgressed)
    assert (event.data.attempt, event.data.percent, event.trace_id) == (1, 40, stories.TRACE_ID)
    assert same(event, await world.bridge.finish(interim)), "a redelivery says the same"
    assert world.analyses.of(JOB_ID) == before
    assert of(await world.bridge.finish(called_back(SUCCESS))) == DONE


@pytest.mark.parametrize("body", [{"status": "processing"}, {"status": "thinking", "result": None}, {}])
async def test_an_interim_webhook_without_progress_tells_nothing_and_ends_nothing(body: JsonObject) -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    assert await world.bridge.finish(called_back(body)) is None
    assert of(await world.bridge.finish(called_back(SUCCESS))) == DONE


async def test_an_interim_webhook_counts_for_the_attempt_that_is_under_way_alone() -> None:
    world = World()
    interim: JsonObject = {"status": "processing", "progress": 40}
    assert await world.bridge.finish(called_back(interim)) is None, "nothing is known of the recording"
    assert world.analyses.kept == {}
    await world.bridge.begin(stored(), FIRST)
    assert await world.bridge.finish(called_back(interim, 2)) is None
    await world.bridge.finish(called_back(SUCCESS))
    ended = world.analyses.of(JOB_ID)
    assert await world.bridge.finish(called_back(interim)) is None
    assert world.analyses.of(JOB_ID) == ended


async def test_the_webhook_that_concluded_an_analysis_tells_its_outcome_again_when_redelivered() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    first = await world.bridge.finish(called_back(SUCCESS))
    assert same(first, await world.bridge.finish(called_back(SUCCESS)))


@pytest.mark.parametrize(
    ("second", "said"),
    [(FAILURE, "failed"), (None, "failed"), ({"status": "success", "result": {"another": 1}}, "completed")],
)
async def test_another_webhook_changes_nothing_and_is_reported(second: JsonObject | None, said: str) -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    await world.bridge.finish(called_back(SUCCESS))
    before = world.analyses.of(JOB_ID)
    event = await world.bridge.finish(called_back(second, 2))
    assert of(event) == (AnalysisWebhookIgnored, said)
    assert isinstance(event, AnalysisWebhookIgnored)
    assert event.data.attempt == 2
    assert same(event, await world.bridge.finish(called_back(second, 2))), "a redelivery says the same"
    assert world.analyses.of(JOB_ID) == before


async def test_an_outcome_that_an_earlier_version_recorded_is_told_again() -> None:
    """It did not say by which event: it may have died before it could publish."""
    world = World()
    outcome = Outcome(AnalysisStatus.COMPLETED, result_json='{"score":1}')
    known = Analysis(JOB_ID, stories.TRACEPARENT, stories.TOKEN_ID, stories.S3_URL, outcome=outcome)
    await world.analyses.insert(known)
    assert of(await world.bridge.finish(called_back(SUCCESS))) == (AnalysisCompleted, {"score": 1})


async def test_a_webhook_that_overtakes_its_recording_waits_for_it() -> None:
    world = World()
    assert await world.bridge.finish(called_back(SUCCESS)) is None
    event = await world.bridge.begin(stored(), FIRST)
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
    assert world.analyses.of(JOB_ID).outcome is None


async def test_the_same_bytes_for_the_same_token_are_answered_from_the_cache() -> None:
    world = World()
    await done_for_another_job(world, SUCCESS)
    event = await world.bridge.begin(stored(), FIRST)
    assert of(event) == DONE
    assert isinstance(event, AnalysisCompleted)
    assert event.data.cached
    assert len(world.server.asked) == 1
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE, "a redelivery says the same"
    told = await world.bridge.finish(called_back(FAILURE))
    assert of(told) == (AnalysisWebhookIgnored, "failed"), "nobody was asked, so nobody can contradict"


async def done_for_another_job(world: World, body: JsonObject) -> None:
    await world.bridge.begin(stored(OTHER_JOB), FIRST)
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
    event = await world.replica(version).begin(stored(digest=sha256, token_id=token_id), FIRST)
    assert of(event) == ASKED
    assert len(world.server.asked) == 2


async def done_with_reference(world: World) -> None:
    await world.bridge.begin(stored(OTHER_JOB, reference=REFERENCE), FIRST)
    await world.bridge.finish(
        AnalysisWebhookReceived.model_validate(called_back(SUCCESS).model_dump() | {"subject": OTHER_JOB})
    )


async def test_the_same_bytes_token_reference_and_version_are_answered_from_the_cache() -> None:
    world = World()
    await done_with_reference(world)
    again = Reference.model_validate_json(REFERENCE.model_dump_json())
    assert of(await world.bridge.begin(stored(reference=again), FIRST)) == DONE
    assert len(world.server.asked) == 1


MOVED = [REFERENCE.scripts[0], REFERENCE.scripts[1].model_copy(update={"start_seconds": 2.25})]
REWORDED = [REFERENCE.scripts[0].model_copy(update={"script": "You can handle the truth!"}), REFERENCE.scripts[1]]


@pytest.mark.parametrize(
    ("changed", "version"),
    [
        ({"audio_url": "s3://sori/references/7/00000000000000bb"}, "1"),
        ({"audio_url": None}, "1"),
        ({"textgrid_url": None}, "1"),
        ({"pitch_url": "s3://sori/actors/8.json"}, "1"),
        ({"scripts": REWORDED}, "1"),
        ({"scripts": MOVED}, "1"),
        ({"scripts": REFERENCE.scripts[:1]}, "1"),
        ({}, "2"),
    ],
    ids=[
        "another voice",
        "no voice",
        "no words",
        "another pitch",
        "a script reworded",
        "a script moved",
        "a script fewer",
        "another analysis server",
    ],
)
async def test_whatever_a_recording_is_compared_with_a_change_of_it_has_it_analysed_anew(
    changed: dict[str, object], version: str
) -> None:
    world = World()
    await done_with_reference(world)
    reference = REFERENCE.model_copy(update=changed)
    assert of(await world.replica(version).begin(stored(reference=reference), FIRST)) == ASKED
    assert world.server.compared_with == [REFERENCE, reference]


@pytest.mark.parametrize(
    ("first", "second"), [(None, REFERENCE), (REFERENCE, None), (None, Reference())], ids=["put in", "removed", "empty"]
)
async def test_a_token_that_comes_into_the_catalogue_or_leaves_it_is_analysed_anew(
    first: Reference | None, second: Reference | None
) -> None:
    world = World()
    await world.bridge.begin(stored(OTHER_JOB, reference=first), FIRST)
    await world.bridge.finish(
        AnalysisWebhookReceived.model_validate(called_back(SUCCESS).model_dump() | {"subject": OTHER_JOB})
    )
    assert of(await world.bridge.begin(stored(reference=second), FIRST)) == ASKED


async def test_a_recording_is_asked_for_again_with_what_it_was_compared_with_at_first() -> None:
    world = World()
    await world.bridge.begin(stored(reference=REFERENCE), FIRST)
    assert of(await world.time_out()) == (AnalysisRequested, 2)
    assert world.server.compared_with == [REFERENCE, REFERENCE]
    await world.replica().begin(stored(reference=REFERENCE), AGAIN)
    assert world.server.compared_with[2] == REFERENCE, "a redelivery too"


A, B = "user:" + "a" * 32, "user:" + "b" * 32


async def done_for(world: World, owner: str | None, result: JsonObject) -> None:
    """Have the other job analysed for this owner, with this result."""
    await world.bridge.begin(stored(OTHER_JOB, owner=owner), FIRST)
    called = called_back({"status": "success", "result": result}).model_dump() | {"subject": OTHER_JOB}
    await world.bridge.finish(AnalysisWebhookReceived.model_validate(called))


NAMES_ITS_JOB: list[JsonObject] = [
    {"job": OTHER_JOB},
    {"score": 1, "files": [{"audio": f"s3://sori/audio/{OTHER_JOB}.wav"}]},
    {"callback": f"https://sori.example/webhook?job_id={OTHER_JOB.replace('-', '')}&attempt=1"},
    {f"{OTHER_JOB}".upper(): 1},
]


@pytest.mark.parametrize("result", NAMES_ITS_JOB)
async def test_a_result_that_names_its_job_answers_nobody_elses_recording(result: JsonObject) -> None:
    world = World()
    await done_for(world, A, result)
    assert of(await world.bridge.begin(stored(owner=B), FIRST)) == ASKED
    assert of(await world.bridge.begin(stored(THIRD_JOB), FIRST)) == ASKED, "nor one without an owner"


@pytest.mark.parametrize("result", [RESULT, *NAMES_ITS_JOB])
@pytest.mark.parametrize("owner", [A, None])
async def test_any_result_answers_its_owners_own_recordings(owner: str | None, result: JsonObject) -> None:
    world = World()
    await done_for(world, owner, result)
    assert of(await world.bridge.begin(stored(owner=owner), FIRST)) == (AnalysisCompleted, result)


async def test_a_result_that_names_no_job_answers_anybodys_recording_and_gives_nothing_of_the_other_job() -> None:
    world = World()
    await done_for(world, A, RESULT)
    event = await world.bridge.begin(stored(owner=B), FIRST)
    assert isinstance(event, AnalysisCompleted)
    assert (event.data.result, event.data.cached, event.data.owner) == (RESULT, True, B)
    assert event.data.s3_url == stories.S3_URL
    assert not {A, OTHER_JOB} & set(event.encode().decode().split('"'))


async def test_an_owners_own_result_is_found_behind_somebody_elses() -> None:
    world = World()
    await done_for(world, A, NAMES_ITS_JOB[0])
    own: JsonObject = {"job": JOB_ID}
    await world.bridge.begin(stored(owner=B), FIRST)
    await world.bridge.finish(called_back({"status": "success", "result": own}))
    assert of(await world.bridge.begin(stored(THIRD_JOB, owner=B), FIRST)) == (AnalysisCompleted, own)


async def test_a_failure_is_not_cached() -> None:
    world = World()
    await done_for_another_job(world, FAILURE)
    assert of(await world.bridge.begin(stored(), FIRST)) == ASKED


async def test_parts_of_the_cache_key_cannot_be_mistaken_for_one_another() -> None:
    world = World()
    await world.replica("ab").begin(stored(OTHER_JOB, token_id="a"), FIRST)
    await world.replica("b").begin(stored(token_id="aa"), FIRST)
    keys = {kept.analysis.cache_key for kept in world.analyses.kept.values()}
    assert len(keys) == 2


async def test_however_often_the_same_bytes_come_one_document_answers_for_them() -> None:
    """Looking one up must not become slower, or larger, with every upload of the same file."""
    world = World()
    await done_for_another_job(world, SUCCESS)
    for number in range(5):
        await world.bridge.begin(stored(f"00000000-0000-4000-8000-00000000010{number}"), FIRST)
    keys = [kept.analysis.cache_key for kept in world.analyses.kept.values() if kept.analysis.cache_key]
    assert len(keys) == 1


async def test_a_redelivery_while_the_analysis_runs_asks_again_with_the_same_attempt() -> None:
    world = World()
    first = await world.bridge.begin(stored(), FIRST)
    assert same(first, await world.bridge.begin(stored(), AGAIN))
    assert [asked[3] for asked in world.server.asked] == [1, 1]


@pytest.mark.parametrize("delivery", [FIRST, REDRIVEN, REDRIVEN_AGAIN], ids=["a second one", "redriven", "both"])
async def test_every_other_repeat_while_the_analysis_runs_is_told_the_same_and_asks_nobody(delivery: Delivery) -> None:
    world = World()
    first = await world.bridge.begin(stored(), FIRST)
    world.analyses.pass_deadline(JOB_ID)
    writes = world.analyses.writes
    again = await world.bridge.begin(stored(), delivery)
    assert isinstance(again, AnalysisRequested)
    assert first is not None
    assert (again.id, again.data.attempt) == (first.id, 1)
    assert len(world.server.asked) == 1
    assert world.analyses.writes == writes + 1, "only that it could not be inserted"


@pytest.mark.parametrize("delivery", [FIRST, AGAIN, REDRIVEN, REDRIVEN_AGAIN])
async def test_what_an_earlier_version_left_without_a_deadline_is_asked_for_once(delivery: Delivery) -> None:
    """Its message waits in the broker; a redrive may come first, or be all there is."""
    world = World()
    await world.analyses.insert(
        Analysis(JOB_ID, stories.TRACEPARENT, token_id=stories.TOKEN_ID, s3_url=stories.S3_URL, deadline=None)
    )
    told = await asyncio.gather(*(world.replica().begin(stored(), delivery) for _ in range(3)))
    assert [of(event) for event in told] == [ASKED] * 3
    assert len(world.server.asked) == 1
    assert TIMEOUT.total_seconds() - 5 < waits_for(world.analyses.of(JOB_ID)) <= TIMEOUT.total_seconds()


@pytest.mark.parametrize("delivery", [FIRST, AGAIN, REDRIVEN, REDRIVEN_AGAIN])
async def test_however_it_comes_a_recording_that_was_never_here_is_asked_for(delivery: Delivery) -> None:
    world = World()
    assert of(await world.bridge.begin(stored(), delivery)) == ASKED
    assert len(world.server.asked) == 1


async def test_the_way_of_a_recording_that_does_not_wait_costs_one_write() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    assert world.analyses.writes == 1


async def test_a_redelivery_after_the_end_tells_the_outcome_again_and_asks_nobody() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    ended = await world.bridge.finish(called_back(SUCCESS))
    assert same(ended, await world.bridge.begin(stored(), FIRST))
    assert len(world.server.asked) == 1


async def test_a_refusal_fails_the_job_at_once() -> None:
    world = World(AnalysisRefusedError("answered 400"))
    assert of(await world.bridge.begin(stored(), FIRST)) == gone(FailureCode.ANALYSIS_REFUSED)
    assert of(await world.bridge.begin(stored(), FIRST)) == gone(FailureCode.ANALYSIS_REFUSED)
    assert len(world.server.asked) == 1


async def test_a_refusal_after_the_webhook_loses_to_it() -> None:
    world = World(AnalysisRefusedError("answered 400"))
    world.server.meanwhile = lambda: world.replica().finish(called_back(SUCCESS))
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE


@pytest.mark.parametrize("failure", [AnalysisServerUnavailableError, AnalysisServerFailedError])
async def test_a_recording_that_is_not_taken_on_waits_and_uses_no_attempt_up(
    failure: type[AnalysisServerUnavailableError | AnalysisServerFailedError],
) -> None:
    world = World(failure("no", 7.0))
    event = await world.bridge.begin(stored(), FIRST)
    assert isinstance(event, AnalysisDelayed)
    assert (event.data.token_id, event.data.s3_url) == (stories.TOKEN_ID, stories.S3_URL)
    kept = world.analyses.of(JOB_ID)
    assert (kept.status, kept.attempt) == (AnalysisStatus.WAITING, 1)
    assert 6 < waits_for(kept) <= 7, "as long as the server asked for"
    for delivery in (FIRST, AGAIN, REDRIVEN, REDRIVEN_AGAIN):
        assert same(event, await world.bridge.begin(stored(), delivery))
    assert len(world.server.asked) == 1, "whatever is told again, the time of its next try stands"
    asked = await world.ask_waiting()
    assert of(asked) == ASKED
    assert isinstance(asked, AnalysisRequested)
    assert world.analyses.of(JOB_ID).deadline == asked.data.deadline
    assert [one[3] for one in world.server.asked] == [1, 1]


def waits_for(analysis: Analysis) -> float:
    assert analysis.deadline is not None
    return (analysis.deadline - datetime.now(UTC)).total_seconds()


async def test_a_recording_that_would_have_to_wait_can_still_be_answered_from_the_cache() -> None:
    world = World()
    await done_for_another_job(world, SUCCESS)
    world.server.away_seconds = 3.0
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE


async def test_a_failed_request_does_not_undo_that_another_replica_asked_again() -> None:
    """As when the first request hangs until the deadline has passed."""
    world = World(None, AnalysisServerUnavailableError("ReadTimeout"))

    async def ask_again() -> None:
        world.server.meanwhile = None
        assert of(await world.time_out()) == (AnalysisRequested, 2)

    world.server.meanwhile = ask_again
    assert of(await world.bridge.begin(stored(), FIRST)) == (AnalysisRequested, 2), "it tells what stands"
    assert world.analyses.of(JOB_ID).attempt == 2
    assert world.analyses.of(JOB_ID).status == AnalysisStatus.PENDING


async def test_a_webhook_that_comes_although_the_request_failed_counts() -> None:
    """As when the connection was cut after the server had taken the recording on."""
    world = World(AnalysisServerUnavailableError("ReadTimeout"))
    assert of(await world.bridge.begin(stored(), FIRST)) == WAITS
    assert of(await world.bridge.finish(called_back(SUCCESS))) == DONE
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE
    assert await world.due() == []


async def test_nothing_is_overdue_before_its_time() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    assert await world.overdue() == []


async def test_an_overdue_analysis_is_asked_for_again_and_given_new_time() -> None:
    world = World()
    first = await world.bridge.begin(stored(), FIRST)
    again = await world.time_out()
    assert of(again) == (AnalysisRequested, 2)
    assert first is not None
    assert again is not None
    assert again.id != first.id
    assert [asked[3] for asked in world.server.asked] == [1, 2]
    assert world.analyses.of(JOB_ID).attempt == 2
    assert await world.overdue() == []


async def test_after_its_last_attempt_an_analysis_is_given_up() -> None:
    world = World(attempts=3)
    await world.bridge.begin(stored(), FIRST)
    assert [of(await world.time_out()) for _ in range(3)] == [
        (AnalysisRequested, 2),
        (AnalysisRequested, 3),
        gone(FailureCode.ANALYSIS_TIMED_OUT),
    ]
    assert len(world.server.asked) == 3
    assert of(await world.bridge.finish(called_back(SUCCESS))) == (AnalysisWebhookIgnored, "completed")
    assert of(await world.bridge.begin(stored(), FIRST)) == gone(FailureCode.ANALYSIS_TIMED_OUT)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_webhook_of_any_attempt_concludes_an_analysis_that_was_asked_for_again(attempt: int) -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    await world.time_out()
    assert of(await world.bridge.finish(called_back(SUCCESS, attempt))) == DONE


async def test_only_one_replica_asks_again() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    late = world.analyses.pass_deadline(JOB_ID)
    assert await asyncio.gather(*(world.replica().pursue(late) for _ in range(4))) == [None] * 4
    (due,) = await world.due()
    events = await asyncio.gather(*(world.replica().ask_waiting(due) for _ in range(4)))
    assert [of(event) for event in events if event] == [(AnalysisRequested, 2)]
    assert [asked[3] for asked in world.server.asked] == [1, 2]


async def test_only_one_replica_gives_up() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored(), FIRST)
    late = world.analyses.pass_deadline(JOB_ID)
    events = await asyncio.gather(*(world.replica().pursue(late) for _ in range(4)))
    assert [of(event) for event in events if event] == [gone(FailureCode.ANALYSIS_TIMED_OUT)]


async def test_a_webhook_that_comes_just_before_an_analysis_is_given_up_wins() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored(), FIRST)
    late = world.analyses.pass_deadline(JOB_ID)
    await world.bridge.finish(called_back(SUCCESS))
    assert await world.bridge.pursue(late) is None
    assert of(await world.bridge.begin(stored(), FIRST)) == DONE


async def test_a_webhook_while_the_analysis_is_asked_for_again_stands() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    world.server.meanwhile = lambda: world.replica().finish(called_back(SUCCESS))
    assert of(await world.time_out()) == DONE
    outcome = world.analyses.of(JOB_ID).outcome
    assert outcome is not None
    assert outcome.status == AnalysisStatus.COMPLETED
    assert await world.overdue() == []


async def test_a_refusal_when_asked_again_fails_the_job() -> None:
    world = World(None, AnalysisRefusedError("answered 410"))
    await world.bridge.begin(stored(), FIRST)
    assert of(await world.time_out()) == gone(FailureCode.ANALYSIS_REFUSED)


@pytest.mark.parametrize(("asked_for", "seconds"), [(None, PAUSE_SECONDS), (1.0, PAUSE_SECONDS), (90.0, 90.0)])
async def test_a_server_that_is_away_when_asked_again_is_asked_later(asked_for: float | None, seconds: float) -> None:
    world = World(None, AnalysisServerUnavailableError("ConnectError", asked_for))
    await world.bridge.begin(stored(), FIRST)
    assert await world.time_out() is None
    assert seconds - 5 < waits_for(world.analyses.of(JOB_ID)) <= seconds
    assert of(await world.ask_waiting()) == (AnalysisRequested, 2)


@pytest.mark.parametrize("failure", [AnalysisServerUnavailableError, AnalysisServerFailedError])
async def test_a_server_that_does_not_take_it_on_uses_no_attempt_up(
    failure: type[AnalysisServerUnavailableError | AnalysisServerFailedError],
) -> None:
    world = World(None, *[failure("no")] * 1000, attempts=2)
    await world.bridge.begin(stored(), FIRST)
    assert await world.time_out() is None
    assert {await world.ask_waiting() for _ in range(999)} == {None}
    assert of(await world.ask_waiting()) == (AnalysisRequested, 2)


async def test_a_recording_that_the_server_fails_with_waits_longer_each_time_and_others_do_not() -> None:
    world = World(*[AnalysisServerFailedError("answered 500")] * 9, AnalysisServerUnavailableError("away"))
    assert of(await world.bridge.begin(stored(), FIRST)) == WAITS
    waits = [waits_for(world.analyses.of(JOB_ID))]
    for _ in range(8):
        await world.ask_waiting()
        waits.append(waits_for(world.analyses.of(JOB_ID)))
    assert all(
        most / 2 - 1 < seconds <= most for seconds, most in zip(waits, [1, 2, 5, 15, 60, *[300] * 4], strict=True)
    )
    assert world.room.free, "it is there for others"
    await world.ask_waiting()
    assert waits_for(world.analyses.of(JOB_ID)) <= LONGEST_PAUSE_SECONDS, "its absence says little about the recording"
    assert of(await world.ask_waiting()) == ASKED
    assert world.analyses.of(JOB_ID).failures == 0


async def test_a_recording_that_breaks_the_connection_each_time_waits_up_to_a_minute() -> None:
    """A few of these must not make the server look away to all others."""
    world = World(*[AnalysisServerUnavailableError("RemoteProtocolError")] * 9)
    await world.bridge.begin(stored(), FIRST)
    waits = [waits_for(world.analyses.of(JOB_ID))]
    for _ in range(8):
        await world.ask_waiting()
        waits.append(waits_for(world.analyses.of(JOB_ID)))
    assert all(seconds <= PAUSE_SECONDS for seconds in waits[:3])
    assert all(29 < seconds <= LONGEST_PAUSE_SECONDS for seconds in waits[4:])


@pytest.mark.parametrize(
    "error", [AnalysisServerUnavailableError("left alone", 3.0, asked=False), AnalysisServerBusyError("503", 300.0)]
)
async def test_a_server_that_is_busy_or_left_alone_says_nothing_about_the_recording(
    error: AnalysisNotTakenError,
) -> None:
    world = World(error)
    await world.bridge.begin(stored(), FIRST)
    kept = world.analyses.of(JOB_ID)
    assert kept.failures == 0
    assert 0 < waits_for(kept) <= (error.retry_after or 0) + PAUSE_SECONDS, "nobody else asks for it sooner"


async def test_what_the_server_asks_for_with_one_recording_is_granted() -> None:
    world = World(AnalysisServerFailedError("answered 500", 400.0))
    await world.bridge.begin(stored(), FIRST)
    assert 395 < waits_for(world.analyses.of(JOB_ID)) <= 400


def ended_from_outside() -> list[JobCancelled | JobExpired]:
    ends = [stories.cancelled(), stories.expired()]
    return [end for end in ends if isinstance(end, JobCancelled | JobExpired)]


ENDS = pytest.mark.parametrize("end", ended_from_outside(), ids=lambda end: end.type)


@ENDS
async def test_a_job_that_ended_before_its_recording_is_stored_is_never_asked_for(
    end: JobCancelled | JobExpired,
) -> None:
    world = World()
    await world.bridge.stop(end)
    await world.bridge.stop(end)
    assert await world.bridge.begin(stored(), FIRST) is None
    assert await world.bridge.begin(stored(), FIRST) is None
    assert world.server.asked == []


@ENDS
async def test_a_job_that_ended_while_it_was_analysed_is_not_asked_for_again(end: JobCancelled | JobExpired) -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    late = world.analyses.pass_deadline(JOB_ID)
    await world.bridge.stop(end)
    assert await world.overdue() == []
    assert await world.bridge.pursue(late) is None
    assert await world.bridge.begin(stored(), FIRST) is None
    assert of(await world.bridge.finish(called_back(SUCCESS))) == (AnalysisWebhookIgnored, "completed")
    assert len(world.server.asked) == 1


@ENDS
async def test_a_job_that_ended_while_it_waits_for_the_server_is_not_asked_for(end: JobCancelled | JobExpired) -> None:
    world = World(AnalysisServerUnavailableError("ConnectError"))
    assert of(await world.bridge.begin(stored(), FIRST)) == WAITS
    due = world.analyses.pass_deadline(JOB_ID)
    await world.bridge.stop(end)
    assert await world.bridge.begin(stored(), FIRST) is None
    assert await world.due() == []
    assert await world.bridge.ask_waiting(due) is None
    assert len(world.server.asked) == 1


@ENDS
async def test_an_analysis_that_ended_first_stays_ended(end: JobCancelled | JobExpired) -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    ended = await world.bridge.finish(called_back(SUCCESS))
    await world.bridge.stop(end)
    assert same(ended, await world.bridge.begin(stored(), FIRST))


@ENDS
async def test_a_job_that_ends_while_it_is_refused_is_not_told_to_have_failed(end: JobCancelled | JobExpired) -> None:
    world = World(AnalysisRefusedError("answered 400"))
    world.server.meanwhile = lambda: world.replica().stop(end)
    assert await world.bridge.begin(stored(), FIRST) is None


async def test_a_purged_job_leaves_a_mark_that_stops_everything() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    late = world.analyses.pass_deadline(JOB_ID)
    await world.bridge.forget(stories.purged())
    await world.bridge.forget(stories.purged())
    mark = world.analyses.of(JOB_ID)
    assert (mark.token_id, mark.s3_url, mark.cache_key, mark.traceparent) == (None, None, None, "")
    assert await world.bridge.pursue(late) is None
    await world.bridge.finish(called_back(SUCCESS))
    await world.bridge.stop(ended_from_outside()[0])
    assert world.analyses.of(JOB_ID) == mark
    assert len(world.server.asked) == 1


async def test_a_recording_that_is_stored_after_its_job_was_purged_is_purged_too() -> None:
    world = World()
    await world.bridge.forget(stories.purged())
    again = await world.bridge.begin(stored(), FIRST)
    assert isinstance(again, JobPurged)
    assert again.id == stories.purged().id
    assert again.data == stories.purged().data
    assert world.server.asked == []


@pytest.mark.parametrize("answer", [None, AnalysisRefusedError("answered 400"), AnalysisServerUnavailableError("gone")])
async def test_a_job_that_is_purged_while_it_is_asked_for_stays_purged(answer: Exception | None) -> None:
    world = World(answer)
    world.server.meanwhile = lambda: world.replica().forget(stories.purged())
    assert not isinstance(await world.bridge.begin(stored(), FIRST), AnalysisFailed | AnalysisDelayed)
    outcome = world.analyses.of(JOB_ID).outcome
    assert outcome is not None
    assert outcome.status == AnalysisStatus.PURGED
    assert world.analyses.of(JOB_ID).s3_url is None


async def test_a_purged_result_answers_nobody_any_more() -> None:
    world = World()
    await done_for_another_job(world, SUCCESS)
    await world.bridge.forget(stories.purged(OTHER_JOB))
    assert of(await world.bridge.begin(stored(), FIRST)) == ASKED


async def test_a_purge_that_may_have_come_before_the_recording_was_stored_is_told_once_more() -> None:
    world = World()
    await world.bridge.begin(stored(), FIRST)
    created_at = world.analyses.of(JOB_ID).created_at

    def purge(since: timedelta, source: str = "/sori/gateway") -> JobPurged:
        return stories.purged().model_copy(update={"time": created_at + since, "source": source})

    again = await world.bridge.purged_again(purge(timedelta(seconds=1)))
    assert same(purge(timedelta()), again)
    assert isinstance(again, JobPurged)
    assert await world.bridge.purged_again(again) is None, "not for ever"
    assert await world.bridge.purged_again(purge(CLOCKS + timedelta(seconds=1))) is None, "stored long before"
    assert await World().bridge.purged_again(purge(timedelta(seconds=1))) is None, "nothing stored"


async def test_an_outcome_whose_announcement_was_cut_short_is_announced_by_the_next_look() -> None:
    world = World(attempts=1)
    await world.bridge.begin(stored(), FIRST)
    event = await world.time_out()
    (unannounced,) = await world.analyses.unannounced(10)
    again = await world.replica().pursue(unannounced)
    assert event is not None
    assert again is not None
    assert (again.id, of(again)) == (event.id, gone(FailureCode.ANALYSIS_TIMED_OUT))
    await world.bridge.announced(again)
    assert await world.analyses.unannounced(10) == []


async def test_that_an_analysis_was_asked_for_again_is_no_outcome_to_note() -> None:
    world = World()
    event = await world.bridge.begin(stored(), FIRST)
    assert event is not None
    await world.bridge.announced(event)
    assert world.analyses.kept[JOB_ID].announced is None


@pytest.mark.parametrize("seed", range(100))
async def test_whatever_is_repeated_the_server_accepts_one_request_for_a_job(seed: int) -> None:
    """Messages come twice and are told again, and replicas ask at once, but nothing is killed or swallowed."""
    chance = random.Random(seed)
    world = World(*chance.choices([None, *NOT_TAKEN], k=chance.randrange(4)), limit=chance.choice([None, 1]))
    world.server.away_seconds = chance.choice([0.0, 3.0])

    async def later(work: Coroutine[Any, Any, object]) -> None:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)
        await work

    async def ask_what_waits() -> None:
        world.server.away_seconds = 0.0
        if JOB_ID in world.analyses.kept and chance.random() < 0.5:
            hurry(world)
        for due in await world.due():
            await world.replica().ask_waiting(due)

    begins = [world.replica().begin(stored(), chance.choice([FIRST, REDRIVEN, REDRIVEN_AGAIN])) for _ in range(3)]
    work = [*begins, *[ask_what_waits() for _ in "abcd"]]
    chance.shuffle(work)
    await asyncio.gather(*(later(one) for one in work))
    while world.analyses.of(JOB_ID).waiting:
        hurry(world)
        await ask_what_waits()
    accepted = len(world.server.asked) - world.server.not_taken
    assert accepted == 1
    assert of(await world.bridge.begin(stored(), REDRIVEN)) == ASKED


def hurry(world: World) -> None:
    """Let the time of the next try come, but no lease of one that is being asked for run out."""
    kept = world.analyses.of(JOB_ID)
    if kept.waiting and waits_for(kept) < LEASE.total_seconds() / 2:
        world.analyses.pass_deadline(JOB_ID)


@pytest.mark.parametrize("seed", range(200))
async def test_whatever_races_one_outcome_stands_and_no_other_is_told(seed: int) -> None:
    chance = random.Random(seed)
    refused = [AnalysisRefusedError("answered 400")] if chance.random() < 0.3 else []
    world = World(*[None] * chance.randrange(3), *refused, attempts=chance.randrange(1, 3))

    async def pursue_what_is_late() -> list[Event]:
        if JOB_ID in world.analyses.kept and world.analyses.of(JOB_ID).deadline and chance.random() < 0.8:
            world.analyses.pass_deadline(JOB_ID)
        bridge = world.replica()
        ended = await world.analyses.unannounced(10)
        pursued = [await bridge.pursue(late) for late in [*ended, *await world.overdue()]]
        asked = [await bridge.ask_waiting(due) for due in await world.due()]
        return [event for event in [*pursued, *asked] if event]

    async def handle(body: JsonObject | None) -> list[Event]:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        try:
            event = await world.replica().finish(called_back(body))
        except AnalysisChangedError:
            event = await world.replica().finish(called_back(body))
        return [event] if event else []

    async def begin() -> list[Event]:
        event = await world.replica().begin(stored(), FIRST)
        return [event] if event else []

    work = [begin(), begin(), handle(SUCCESS), handle(FAILURE), handle(None), *[pursue_what_is_late() for _ in "abc"]]
    chance.shuffle(work)
    told = [event for events in await asyncio.gather(*work) for event in events]
    # A redelivery at the end, as after a crash, tells what stands.
    standing = await world.bridge.begin(stored(), FIRST)
    assert standing is not None
    no_ends = AnalysisRequested | AnalysisWebhookIgnored
    ends = {(event.id, str(event.data)) for event in told if not isinstance(event, no_ends)}
    assert ends <= {(standing.id, str(standing.data))}
    outcome = world.analyses.of(JOB_ID).outcome
    assert outcome is not None
    assert of(standing) == (DONE if outcome.result_json is not None else gone(outcome.code or FailureCode.NOT_AUDIO))
