"""Events on the wire: ids that a repeat keeps, traces that are valid, and refusals that tell the field alone."""

import json
import re
from copy import copy
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts import events
from contracts.events import EVENT_TYPES, Event, InvalidEventError
from contracts.failures import FailureCode
from contracts.job import progressed
from tests.unit import stories

SECRET = "hunter2-the-secret"
ALL: dict[str, Event] = {
    event.type: event
    for event in (
        stories.received(),
        stories.stored(),
        stories.rejected(),
        stories.requested(),
        stories.called_back({"status": "success", "result": {"score": None}}),
        stories.progressed(40),
        stories.completed(),
        stories.failed(FailureCode.ANALYSIS_FAILED),
        stories.delayed(),
        stories.webhook_ignored(),
        stories.HOLDS[0],
        stories.RESUMES[0],
        stories.cancelled(),
        stories.purged(),
        stories.audio_removed(),
        stories.analysis_removed(),
        stories.expired(),
        stories.made(events.JobProgressed, progressed(stories.new_job(), 1, stories.new_job().view), "1"),
    )
}
W3C_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of every scalar in an event that its schema says something about."""
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in places(inner, (*path, key))]
    if isinstance(value, list):
        return [found for index, inner in enumerate(value) for found in places(inner, (*path, index))]
    return [path]


def replaced(value: Any, path: tuple[str | int, ...], new: object) -> Any:
    if not path:
        return new
    copied = copy(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidEventError) as refused:
        events.decode(body)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__, "a log of the error would show the values after all"
    return str(refused.value)


def test_the_examples_here_are_of_every_type() -> None:
    assert set(ALL) == {kind.TYPE for kind in EVENT_TYPES}


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_an_event_reads_back_as_it_was_written(event: Event) -> None:
    assert events.decode(event.encode()) == event


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_an_envelope_has_what_cloudevents_requires(event: Event) -> None:
    envelope = json.loads(event.encode())
    assert (envelope["specversion"], envelope["type"]) == ("1.0", event.TYPE)
    assert re.fullmatch(r"/sori/[a-z-]+", envelope["source"])
    assert envelope["subject"] == stories.JOB_ID
    # Attribute names: CloudEvents 1.0, section 3.1.1.
    assert all(re.fullmatch("[a-z0-9]+", name) for name in envelope)


@given(st.text(), st.sampled_from(EVENT_TYPES), st.text())
def test_an_id_is_the_same_each_time_it_is_derived(job_id: str, kind: type[Event], step: str) -> None:
    assert events.event_id(job_id, kind.TYPE, step) == events.event_id(job_id, kind.TYPE, step)


def test_ids_differ_by_job_type_and_step() -> None:
    derived = [
        events.event_id(job_id, kind.TYPE, step)
        for job_id in (stories.JOB_ID, stories.JOB_ID.replace("7", "8"))
        for kind in EVENT_TYPES
        for step in ("", "1", "2")
    ]
    assert len(set(derived)) == len(derived)


def test_ids_are_those_that_earlier_versions_derived() -> None:
    """Another id for the same step would be applied a second time after a deployment."""
    assert events.event_id(stories.JOB_ID, "upload.received.v1") == "9767d53b-a20b-52fd-a317-53f2dec71ea9"
    assert events.event_id(stories.JOB_ID, "analysis.requested.v1", "2") == "568f2a7e-a7e2-5d70-86ac-5e1bccb5313d"


def test_a_repeat_of_a_step_has_the_same_id_but_its_own_time() -> None:
    first, again = stories.requested(1), stories.requested(1)
    assert first.id == again.id
    assert first.time != again.time
    assert first.id != stories.requested(2).id


def test_a_time_is_one_that_mongodb_keeps_whole() -> None:
    event = events.UploadReceived.new(
        stories.JOB_ID, stories.received().data, source="gateway", traceparent=stories.TRACEPARENT
    )
    assert event.time.microsecond % 1000 == 0
    assert event.time.tzinfo is not None


@given(st.none() | st.text() | st.from_regex(r"\A00-[0-9a-fA-F]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"))
def test_a_trace_is_valid_whatever_the_caller_sent(received: str | None) -> None:
    traceparent = events.continued_trace(received)
    assert W3C_TRACEPARENT.fullmatch(traceparent)
    assert traceparent == received or not (received and W3C_TRACEPARENT.fullmatch(received))


@pytest.mark.parametrize(
    "invalid",
    [
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{stories.TRACE_ID}-{'0' * 16}-01",
        stories.TRACEPARENT.upper(),
        stories.TRACEPARENT.replace("00-", "ff-", 1),
        stories.TRACEPARENT[:-1],
        f"{stories.TRACEPARENT}-extra",
        f"{stories.TRACEPARENT}\n",
        f" {stories.TRACEPARENT}",
        stories.TRACEPARENT.replace("-", "_"),
    ],
)
def test_an_invalid_traceparent_begins_a_new_sampled_trace(invalid: str) -> None:
    traceparent = events.continued_trace(invalid)
    assert W3C_TRACEPARENT.fullmatch(traceparent)
    assert stories.TRACE_ID not in traceparent
    assert traceparent.endswith("-01")


def test_new_traces_differ() -> None:
    assert len({events.continued_trace(None) for _ in range(100)}) == 100


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_an_event_names_its_trace(event: Event) -> None:
    assert event.trace_id == stories.TRACE_ID


FREE = {
    "token_id",
    "message",
    "status",
    "stage",
    "reason",
    "queue",
    "event_type",
    "event_id",
    "held_id",
    "source",
    "id",
}
"""Fields that take any text; what they hold is never wrong."""


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_a_refusal_names_the_field_and_never_the_value(event: Event) -> None:
    envelope = json.loads(event.encode())
    checked = 0
    for path in places(envelope):
        free = (
            path[-1] in FREE
            or path[:2] in {("data", "result"), ("data", "body")}
            or path[-1] in {"inbox_key", "codec", "container"}
        )
        if free or path == ("type",):
            continue
        said = refusal(json.dumps(replaced(envelope, path, SECRET)).encode())
        assert ".".join(str(part) for part in path) in said
        assert SECRET not in said
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_a_missing_field_is_named(event: Event) -> None:
    envelope = json.loads(event.encode())
    for name in ("id", "subject", "time", "traceparent", "data", "source"):
        without = {key: value for key, value in envelope.items() if key != name}
        assert f"{name}: Field required" in refusal(json.dumps(without).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"{}", b'{"type": null}', b'{"type": 5}', b"NaN", b"[" * 100_000],
)
def test_what_is_no_event_at_all_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("invalid event: ")


@pytest.mark.parametrize("kind", ["upload.received.v2", "upload.received", "UPLOAD.RECEIVED.V1", "", "job.exploded.v1"])
def test_an_unknown_type_or_version_is_refused_with_its_reason(kind: str) -> None:
    envelope = json.loads(stories.received().encode()) | {"type": kind}
    said = refusal(json.dumps(envelope).encode())
    assert "type" in said
    assert kind in said


@example("x" * 10_000)
@given(st.text())
def test_a_refusal_is_short_enough_for_a_header(kind: str) -> None:
    envelope = json.loads(stories.received().encode()) | {"type": f"!{kind}"}
    assert len(refusal(json.dumps(envelope).encode())) <= 200


@pytest.mark.parametrize("event", ALL.values(), ids=ALL)
def test_fields_of_a_later_version_are_passed_over(event: Event) -> None:
    envelope = json.loads(event.encode())
    later = {**envelope, "priority": 5, "data": {**envelope["data"], "added_later": {"deep": [1]}}}
    assert events.decode(json.dumps(later).encode()) == event


@pytest.mark.parametrize(
    "job_id", ["", "x", stories.JOB_ID.upper(), f"{stories.JOB_ID}\n", "../../etc/passwd", stories.JOB_ID[:-1]]
)
def test_a_subject_is_a_job_id(job_id: str) -> None:
    envelope = json.loads(stories.received().encode()) | {"subject": job_id}
    assert "subject" in refusal(json.dumps(envelope).encode())


@given(stories.JSON_OBJECTS)
def test_json_objects_keep_every_value(value: dict[str, Any]) -> None:
    assert events.from_json(events.to_json(value)) == value
    assert json.loads(events.to_json(value)) == value


@pytest.mark.parametrize("text", ["", "1", "null", "[]", '"x"', "{", "{} {}", "not json"])
def test_what_is_no_json_object_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        events.from_json(text)


@pytest.mark.parametrize("traceparent", [None, "00-x", 7])
def test_a_message_that_names_its_job_is_known_by_it_whatever_else_is_wrong(traceparent: object) -> None:
    said = {"id": "an-event", "subject": stories.JOB_ID, "type": "audio.stored.v9", "traceparent": traceparent}
    known = events.envelope(json.dumps({name: value for name, value in said.items() if value is not None}).encode())
    assert known is not None
    assert (known.id, known.subject, known.type) == ("an-event", stories.JOB_ID, "audio.stored.v9")
    held = events.JobHeldData(queue="a.queue", event_id=known.id, event_type=known.type, reason="no")
    assert events.JobHeld.new(known.subject, held, source="test", traceparent=known.traceparent).trace_id
