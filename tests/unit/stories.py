"""Everything that can happen to one job, as its services would publish it: the courses that unit tests replay."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import count

from hypothesis import strategies as st

from contracts import events, topology
from contracts.events import Event, EventData, JsonObject
from contracts.failures import FailureCode
from contracts.job import Job

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
JSON_OBJECTS = st.dictionaries(st.text(), _JSON, max_size=4)
"""Any JSON object, for property tests."""

JOB_ID = "73732cad-5149-44d4-a954-e9c4781635c3"
TOKEN_ID = "test-token"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
S3_URL = f"s3://sori/audio/{JOB_ID}.wav"
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
AUDIO = events.AudioInfo(
    duration_seconds=1.5, sample_rate=16000, channels=1, codec="pcm_s16le", container="wav", waveform=[0, 128, 255]
)
REFERENCE = events.Reference(
    audio_url="s3://sori/references/7/00000000000000aa",
    textgrid_url="s3://sori/catalogue/7.TextGrid",
    pitch_url="https://sori.s3.us-east-1.amazonaws.com/catalogue/7.json",
    scripts=[
        events.ReferenceScript(script_id=11, start_seconds=0.25, end_seconds=1.5, script="You can't handle the truth!"),
        events.ReferenceScript(script_id=12, start_seconds=2.0, end_seconds=3.75, script="진실을 감당할 수 없어"),
    ],
)
RESULT: JsonObject = {"score": 87.5, "단어": [{"word": "hello", "start": None}], "big": 2**70}
BEGAN = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
_SECONDS = count(1)


def made(kind: type[Event], data: EventData, step: str = "", job_id: str = JOB_ID) -> Event:
    """Return an event as its service makes it, each one later than the last."""
    event = kind.new(job_id, data, source="test", traceparent=TRACEPARENT, step=step)
    return event.model_copy(update={"time": BEGAN + timedelta(seconds=next(_SECONDS))})


def received(
    job_id: str = JOB_ID,
    *,
    digest: str | None = SHA256,
    token_id: str = TOKEN_ID,
    reference: events.Reference | None = None,
) -> events.UploadReceived:
    """The gateway holds the last byte."""
    data = events.UploadReceivedData(
        token_id=token_id, inbox_key=f"inbox/{job_id}", size_bytes=4, sha256=digest, reference=reference
    )
    event = made(events.UploadReceived, data, job_id=job_id)
    assert isinstance(event, events.UploadReceived)
    return event


def stored(
    job_id: str = JOB_ID,
    *,
    digest: str = SHA256,
    token_id: str = TOKEN_ID,
    reference: events.Reference | None = None,
    owner: str | None = None,
) -> events.AudioStored:
    """The uploader kept the recording."""
    data = events.AudioStoredData(
        token_id=token_id,
        s3_url=S3_URL,
        sha256=digest,
        size_bytes=4,
        audio=AUDIO,
        reference=reference,
        owner=owner,
    )
    event = made(events.AudioStored, data, job_id=job_id)
    assert isinstance(event, events.AudioStored)
    return event


def rejected(code: FailureCode = FailureCode.NOT_AUDIO) -> Event:
    """The uploader found that the recording cannot be used."""
    return made(events.UploadRejected, events.UploadRejectedData(token_id=TOKEN_ID, code=code))


def requested(attempt: int = 1) -> Event:
    """The analysis server took the recording on."""
    data = events.AnalysisRequestedData(
        token_id=TOKEN_ID, s3_url=S3_URL, attempt=attempt, deadline=BEGAN + timedelta(hours=attempt)
    )
    return made(events.AnalysisRequested, data, str(attempt))


def called_back(body: JsonObject | None, attempt: int = 1) -> events.AnalysisWebhookReceived:
    """The analysis server called the webhook."""
    data = events.AnalysisWebhookReceivedData(attempt=attempt, body=body)
    event = made(events.AnalysisWebhookReceived, data, f"{attempt}/{sha256(str(body).encode()).hexdigest()[:16]}")
    assert isinstance(event, events.AnalysisWebhookReceived)
    return event


def progressed(percent: int, attempt: int = 1) -> Event:
    """The analysis server said how far it is."""
    data = events.AnalysisProgressedData(token_id=TOKEN_ID, attempt=attempt, percent=percent)
    return made(events.AnalysisProgressed, data, f"{attempt}/{percent}")


def completed(result: JsonObject | None = None) -> Event:
    """The recording has its result."""
    data = events.AnalysisCompletedData(token_id=TOKEN_ID, s3_url=S3_URL, result=result or RESULT, cached=False)
    return made(events.AnalysisCompleted, data)


def failed(code: FailureCode) -> Event:
    """The recording will have no result."""
    return made(events.AnalysisFailed, events.AnalysisFailedData(token_id=TOKEN_ID, s3_url=S3_URL, code=code))


def delayed() -> Event:
    """The analysis server cannot be asked now."""
    return made(events.AnalysisDelayed, events.AnalysisDelayedData(token_id=TOKEN_ID, s3_url=S3_URL))


def webhook_ignored(attempt: int = 1, body: str = "") -> Event:
    """The analysis server called back after the analysis had ended."""
    data = events.AnalysisWebhookIgnoredData(attempt=attempt, said="completed")
    return made(events.AnalysisWebhookIgnored, data, f"{attempt}{body}")


def held(queue: str, kind: type[Event], step: str = "", replays: int = 0) -> Event:
    """A service set the message of this kind aside, after an operator had put it back `replays` times."""
    lost = events.event_id(JOB_ID, kind.TYPE, step)
    data = events.JobHeldData(queue=queue, event_id=lost, event_type=kind.TYPE, reason="ValueError: no")
    return made(events.JobHeld, data, topology.held_step(queue, lost, replays))


def resumed(hold: Event) -> Event:
    """An operator put the message back that this job.held is about."""
    assert isinstance(hold, events.JobHeld)
    return made(events.JobResumed, events.JobResumedData(held_id=hold.id, queue=hold.data.queue), hold.id)


def cancelled() -> Event:
    """The user no longer wants the result."""
    return made(events.JobCancelled, events.JobCancelledData(token_id=TOKEN_ID))


def purged(job_id: str = JOB_ID) -> events.JobPurged:
    """All that is kept of the job is to be removed."""
    event = made(events.JobPurged, events.JobPurgedData(token_id=TOKEN_ID), job_id=job_id)
    assert isinstance(event, events.JobPurged)
    return event


def audio_removed() -> Event:
    """Nothing of the recording is left."""
    return made(events.AudioRemoved, events.AudioRemovedData(token_id=TOKEN_ID))


def analysis_removed() -> Event:
    """Nothing of the analysis is left."""
    return made(events.AnalysisRemoved, events.AnalysisRemovedData(token_id=TOKEN_ID))


def expired(code: FailureCode = FailureCode.NO_PROGRESS) -> Event:
    """Nothing has moved the job for too long."""
    return made(events.JobExpired, events.JobExpiredData(token_id=TOKEN_ID, code=code))


COURSES: dict[str, tuple[Event, ...]] = {
    "begun": (received(), stored(), requested()),
    "completed": (received(), stored(), requested(), completed()),
    "answered from the cache": (received(), stored(), completed()),
    "delayed, then completed": (received(), stored(), delayed(), requested(), completed()),
    "rejected": (received(), rejected()),
    "refused": (received(), stored(), failed(FailureCode.ANALYSIS_REFUSED)),
    "failed": (received(), stored(), requested(), failed(FailureCode.ANALYSIS_FAILED)),
    "asked again, then completed": (received(), stored(), requested(1), requested(2), completed()),
    "timed out": (
        received(),
        stored(),
        requested(1),
        requested(2),
        requested(3),
        failed(FailureCode.ANALYSIS_TIMED_OUT),
        webhook_ignored(),
    ),
}
"""The whole of what is published about one job, by how it went."""

HOLDS: tuple[Event, ...] = (
    held("uploader.upload.received.v1", events.UploadReceived),
    held("analyzer-bridge.audio.stored.v1", events.AudioStored),
    held("analyzer-bridge.analysis.webhook-received.v1", events.AnalysisWebhookReceived, "1/abc"),
    held("notifier.upload.received.v1", events.UploadReceived),
    held("notifier.analysis.requested.v1", events.AnalysisRequested, "1"),
    held("notifier.analysis.completed.v1", events.AnalysisCompleted),
)
"""Dead letters that may join any course; a replay of what was set aside is a course that goes on."""

RESUMES: tuple[Event, ...] = tuple(resumed(hold) for hold in HOLDS)
"""What an operator did about each of them."""

HOLDS_AGAIN: tuple[Event, ...] = (
    held("analyzer-bridge.audio.stored.v1", events.AudioStored, replays=1),
    held("notifier.analysis.completed.v1", events.AnalysisCompleted, replays=1),
)
"""Dead letters that a replay did not help."""

OUTSIDE_ENDS: tuple[Event, ...] = (
    cancelled(),
    purged(),
    audio_removed(),
    analysis_removed(),
    expired(),
    expired(FailureCode.HELD_TOO_LONG),
)
"""What may end a job in the middle of its course; the last two are the same step."""


def new_job(job_id: str = JOB_ID) -> Job:
    """The job as the gateway inserts it, before anything else is known."""
    event = received(job_id).model_copy(update={"time": BEGAN})
    return Job.received(event, "recording.wav")
