"""What a call of the webhook becomes: the event of it, and what is too large or too deep to keep."""

import pytest

from contracts import events
from contracts.events import JsonObject
from gateway.webhook.calls import too_large_to_keep, webhook_event
from tests.unit import stories

BODY: JsonObject = {"status": "success", "result": {"score": 1}}


def test_the_same_webhook_call_is_the_same_event() -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id == webhook_event(stories.JOB_ID, 1, dict(BODY), stories.TRACEPARENT).id


@pytest.mark.parametrize(
    ("attempt", "body"), [(2, BODY), (1, {"status": "failed"}), (1, {**BODY, "job_id": "1"}), (1, None)]
)
def test_another_webhook_call_is_another_event(attempt: int, body: JsonObject | None) -> None:
    first = webhook_event(stories.JOB_ID, 1, BODY, stories.TRACEPARENT)
    assert first.id != webhook_event(stories.JOB_ID, attempt, body, stories.TRACEPARENT).id


def test_a_webhook_event_carries_the_body_and_the_trace() -> None:
    event = webhook_event(stories.JOB_ID, 3, BODY, stories.TRACEPARENT)
    assert isinstance(event, events.AnalysisWebhookReceived)
    assert (event.data.attempt, event.data.body) == (3, BODY)
    assert (event.subject, event.trace_id) == (stories.JOB_ID, stories.TRACE_ID)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"status": "success", "result": {"a": 1}}, len('{"a":1}')),
        ({"status": "completed", "analysis_results": {"가": None}}, len('{"가":null}'.encode())),
        ({"status": "success", "result": {"a": 1e15}}, len('{"a":1000000000000000.0}')),
        ({"status": "failed", "error": "x" * 100}, 0),
        ({"status": "success", "result": "x" * 100}, 0),
        ({"padding": "x" * 100}, 0),
    ],
)
def test_the_limit_is_on_the_result_alone_as_it_is_kept(body: JsonObject, size: int) -> None:
    assert not too_large_to_keep(body, size)
    assert too_large_to_keep(body, size - 1) == (size > 0)


@pytest.mark.parametrize(("levels", "too_deep"), [(98, False), (99, True), (150, True)])
def test_what_is_nested_so_deeply_that_an_event_could_not_carry_it_is_not_kept(levels: int, too_deep: bool) -> None:
    result = events.from_json('{"a":' * levels + "1" + "}" * levels)
    body: JsonObject = {"status": "success", "result": result}
    assert too_large_to_keep(body, 10**6) == too_deep
    if not too_deep:
        event = webhook_event(stories.JOB_ID, 1, body, stories.TRACEPARENT)
        assert events.decode(event.encode()) == event
