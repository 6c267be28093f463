"""What the bridge tells of an analysis has the metadata that the user gave, whatever became of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from analyzer_bridge import telling
from analyzer_bridge.analysis import Analysis, Outcome
from contracts.events import Event, JobPurged, JobPurgedData, JsonObject
from contracts.failures import FailureCode
from tests.unit import stories

NOTED: JsonObject = {"user": 7, "a.b": [None]}
ASKED = Analysis(
    stories.JOB_ID,
    stories.TRACEPARENT,
    token_id=stories.TOKEN_ID,
    s3_url=stories.S3_URL,
    deadline=datetime(2026, 1, 1, tzinfo=UTC),
    metadata=NOTED,
)
PURGED = JobPurged.new(
    stories.JOB_ID,
    JobPurgedData(token_id=stories.TOKEN_ID, metadata=NOTED),
    source="gateway",
    traceparent=stories.TRACEPARENT,
)
TOLD: dict[str, Callable[[], Event | None]] = {
    "asked for": lambda: telling.stands(ASKED),
    "waiting": lambda: telling.stands(replace(ASKED, waiting=True)),
    "completed": lambda: telling.told(replace(ASKED, outcome=Outcome.completed("{}", by="x"))),
    "failed": lambda: telling.told(replace(ASKED, outcome=Outcome.failed(FailureCode.ANALYSIS_FAILED, by="x"))),
    "purged": lambda: telling.purged(PURGED),
    "removed": lambda: telling.removed(PURGED),
}


@pytest.mark.parametrize("tell", TOLD.values(), ids=TOLD)
def test_what_the_user_noted_is_passed_on(tell: Callable[[], Event | None]) -> None:
    event = tell()
    assert event is not None
    assert event.data.model_dump()["metadata"] == NOTED
