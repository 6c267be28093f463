"""The events on the exchange: CloudEvents 1.0 envelopes in structured JSON mode, and what each one carries."""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID, uuid5

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from contracts import catalogue
from contracts.failures import FailureCode

CONTENT_TYPE = "application/cloudevents+json"
"""Content type of an event on the wire (CloudEvents JSON Event Format 1.0, section 3)."""

_NAMESPACE = UUID("5b0f6f3e-7d8b-5c52-9a4d-1d7a2c0e5e11")
_TRACEPARENT = re.compile(r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")


JobId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="UUID of the job")]
Traceparent = Annotated[
    str,
    Field(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$", description="W3C Trace Context, version 00"),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes, lower-case hex")]
Owner = Annotated[
    str,
    Field(
        pattern=r"^(user|key):[0-9a-f]{32}$",
        description="Who the recording belongs to: a pseudonym of a person at an issuer, or of an API key",
    ),
]
TokenId = Annotated[str, Field(min_length=1, max_length=200, description="The token that was dubbed; opaque")]
S3Url = Annotated[str, Field(pattern=r"^s3://[^/]+/.+$", description="Where the audio lies, s3://bucket/key")]
JsonObject = dict[str, JsonValue]


class InvalidEventError(ValueError):
    """A message is no event that this version of the contract knows; no retry can help."""


class EventData(BaseModel):
    """What an event carries; unknown fields are passed over, so that old code reads newer events."""

    model_config = ConfigDict(frozen=True)


class AudioInfo(EventData):
    """What decoding every frame of a recording found."""

    duration_seconds: float = Field(gt=0)
    sample_rate: int = Field(gt=0, description="Hz")
    channels: int = Field(gt=0)
    codec: str = Field(max_length=64)
    container: str = Field(max_length=64)
    waveform: list[Annotated[int, Field(ge=0, le=255)]] = Field(
        max_length=200, description="Peak of each of up to 200 equal stretches of time; 255 is full scale"
    )
    damaged_packets: int = Field(
        default=0,
        ge=0,
        exclude_if=lambda count: not count,
        description="How many packets could not be decoded and were left out; absent when none",
    )


class ReferenceScript(EventData):
    """A sentence of the clip, and when the actor speaks it."""

    script_id: int = Field(ge=1)
    start_seconds: float = Field(description="From the beginning of the clip")
    end_seconds: float
    script: str = Field(min_length=1, max_length=catalogue.SCRIPT_CHARACTERS)


class Reference(EventData):
    """What a recording is compared with: the token's own, as the catalogue had it when the recording came."""

    audio_url: str | None = Field(default=None, description="The actor's speech, s3:// or https://")
    textgrid_url: str | None = Field(default=None, description="Its words and phones, a Praat TextGrid")
    pitch_url: str | None = Field(default=None, description="Its pitch, JSON")
    scripts: list[ReferenceScript] = Field(default_factory=list, max_length=catalogue.MAX_SCRIPTS)

    @property
    def revision(self) -> str:
        """Return what is different for every other reference: a digest of all that it says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class RecordingData(EventData):
    """What every event about a recording passes on, from its upload to the job's end."""

    token_id: TokenId
    metadata: JsonObject | None = Field(default=None, description="The metadata that came with the recording, if any")
    owner: Owner | None = Field(default=None, description="Absent when uploads need no login")

    def passed_on(self) -> dict[str, Any]:
        """Return what the next event about this recording says of it too, by field."""
        return {name: getattr(self, name) for name in RecordingData.model_fields}


class UploadReceivedData(RecordingData):
    """A recording lies in the inbox."""

    inbox_key: str = Field(description="Claim check: the S3 key of the bytes")
    size_bytes: int = Field(gt=0)
    sha256: Sha256 | None = Field(default=None, description="To be verified, when the way in computed one")
    reference: Reference | None = Field(default=None, description="Absent when the token is not in the catalogue")


class AudioStoredData(RecordingData):
    """A recording was decoded, verified and stored."""

    s3_url: S3Url
    sha256: Sha256
    size_bytes: int = Field(gt=0)
    audio: AudioInfo
    reference: Reference | None = Field(default=None, description="As upload.received had it")


class UploadRejectedData(RecordingData):
    """A recording cannot be used."""

    code: FailureCode


class AnalysisRequestedData(RecordingData):
    """The analysis server took the recording on."""

    s3_url: S3Url
    attempt: int = Field(ge=1)
    deadline: AwareDatetime = Field(description="When the analysis is asked for again or given up")


class AnalysisWebhookReceivedData(EventData):
    """The analysis server called back with a valid signature."""

    attempt: int = Field(ge=1, description="The attempt whose signature the call carried")
    body: JsonObject | None = Field(default=None, description="The call's JSON body; absent when too large to keep")


class AnalysisProgressedData(RecordingData):
    """The analysis server said how far it is."""

    attempt: int = Field(ge=1, description="The attempt that is under way")
    percent: int = Field(ge=0, le=100, description="How much of the analysis is done")


class AnalysisCompletedData(RecordingData):
    """A recording has its result."""

    s3_url: S3Url
    result: JsonObject = Field(description="As the analysis server sent it")
    cached: bool = Field(description="True when an earlier analysis of the same bytes answered")


class AnalysisFailedData(RecordingData):
    """A recording will have no result."""

    s3_url: S3Url
    code: FailureCode


class AnalysisDelayedData(RecordingData):
    """The analysis server is not asked at once; the recording waits until it is its turn."""

    s3_url: S3Url


class AnalysisWebhookIgnoredData(EventData):
    """A webhook call came when the analysis had ended by other means; its end stands."""

    attempt: int = Field(ge=1, description="The attempt whose signature the call carried")
    said: Literal["completed", "failed"] = Field(description="What the call would have made of the analysis")


class JobHeldData(EventData):
    """A message about the job was set aside as a dead letter."""

    queue: str = Field(description="The queue whose dead letters hold the message")
    event_id: str
    event_type: str
    reason: str = Field(max_length=200)


class JobResumedData(EventData):
    """An operator put a dead letter back into its queue."""

    held_id: str = Field(description="The id of the job.held event that is no longer true")
    queue: str = Field(description="The queue that the message went back to")


class JobCancelledData(RecordingData):
    """The user no longer wants the job's result."""


class JobPurgedData(RecordingData):
    """All that is kept of the job is to be removed, each part by its owner."""


class AudioRemovedData(RecordingData):
    """Nothing of the job's recording is left in S3."""


class AnalysisRemovedData(RecordingData):
    """Nothing of the job's analysis is left but a mark that keeps it from coming back."""


class JobExpiredData(RecordingData):
    """Nothing has moved the job for JOB_MAX_AGE, and nothing is expected to."""

    code: FailureCode


class JobProgressedData(RecordingData):
    """The job's state as a listener sees it after one change."""

    revision: int = Field(ge=1)
    status: str
    stage: str
    progress: int
    message: str
    s3_url: str | None = None
    error: FailureCode | None = None
    result_json: str | None = Field(default=None, description="The result as JSON text: it is passed on unread")
    created_at: AwareDatetime
    updated_at: AwareDatetime


class Envelope(BaseModel):
    """What can be said of a message about a job even when it is no event of this contract."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(min_length=1, max_length=200)
    subject: JobId
    type: str = Field(min_length=1, max_length=200)
    traceparent: Annotated[
        str,
        BeforeValidator(lambda received: continued_trace(received if isinstance(received, str) else None)),
        Field(default="", validate_default=True, description="A new one when the message has none"),
    ]


class Event(BaseModel):
    """The envelope (CloudEvents 1.0, section 3.1); `subject` is the job id, `traceparent` the tracing extension."""

    TYPE: ClassVar[str]

    model_config = ConfigDict(frozen=True)

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, description="Derived from job and step: a repeat has the same id")
    source: str = Field(min_length=1, description="The service that says so, e.g. /sori/gateway")
    subject: JobId
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: Traceparent
    # Narrowed by each event below.
    type: str
    data: EventData

    @classmethod
    def new(cls, job_id: str, data: EventData, *, source: str, traceparent: str, step: str = "") -> Self:
        """Say that this happened to the job now; `step` tells apart what may happen to one job more than once."""
        return cls(
            id=event_id(job_id, cls.TYPE, step),
            source=f"/sori/{source}",
            subject=job_id,
            time=now(),
            traceparent=traceparent,
            type=cls.TYPE,
            data=data,
        )

    def encode(self) -> bytes:
        """Return the event as it goes on the wire."""
        return self.model_dump_json(exclude_none=True).encode()

    @property
    def trace_id(self) -> str:
        """Return the trace that this event belongs to, 32 hex digits."""
        return self.traceparent[3:35]


class UploadReceived(Event):
    """upload.received: the gateway holds the last byte of a recording."""

    TYPE: ClassVar[str] = "upload.received.v1"
    type: Literal["upload.received.v1"]
    data: UploadReceivedData


class AudioStored(Event):
    """audio.stored: the uploader verified the recording and stored it."""

    TYPE: ClassVar[str] = "audio.stored.v1"
    type: Literal["audio.stored.v1"]
    data: AudioStoredData


class UploadRejected(Event):
    """upload.rejected: the uploader found that the recording cannot be used."""

    TYPE: ClassVar[str] = "upload.rejected.v1"
    type: Literal["upload.rejected.v1"]
    data: UploadRejectedData


class AnalysisRequested(Event):
    """analysis.requested: the analysis server accepted the recording."""

    TYPE: ClassVar[str] = "analysis.requested.v1"
    type: Literal["analysis.requested.v1"]
    data: AnalysisRequestedData


class AnalysisWebhookReceived(Event):
    """analysis.webhook-received: the analysis server called back."""

    TYPE: ClassVar[str] = "analysis.webhook-received.v1"
    type: Literal["analysis.webhook-received.v1"]
    data: AnalysisWebhookReceivedData


class AnalysisProgressed(Event):
    """analysis.progressed: the analysis server said how far it is."""

    TYPE: ClassVar[str] = "analysis.progressed.v1"
    type: Literal["analysis.progressed.v1"]
    data: AnalysisProgressedData


class AnalysisCompleted(Event):
    """analysis.completed: the recording has its result."""

    TYPE: ClassVar[str] = "analysis.completed.v1"
    type: Literal["analysis.completed.v1"]
    data: AnalysisCompletedData


class AnalysisFailed(Event):
    """analysis.failed: the recording will have no result."""

    TYPE: ClassVar[str] = "analysis.failed.v1"
    type: Literal["analysis.failed.v1"]
    data: AnalysisFailedData


class AnalysisDelayed(Event):
    """analysis.delayed: the recording waits until the analysis server has room, or is back."""

    TYPE: ClassVar[str] = "analysis.delayed.v1"
    type: Literal["analysis.delayed.v1"]
    data: AnalysisDelayedData


class AnalysisWebhookIgnored(Event):
    """analysis.webhook-ignored: the analysis server called back after the analysis had ended."""

    TYPE: ClassVar[str] = "analysis.webhook-ignored.v1"
    type: Literal["analysis.webhook-ignored.v1"]
    data: AnalysisWebhookIgnoredData


class JobHeld(Event):
    """job.held: a service set a message about the job aside as a dead letter."""

    TYPE: ClassVar[str] = "job.held.v1"
    type: Literal["job.held.v1"]
    data: JobHeldData


class JobResumed(Event):
    """job.resumed: an operator put a message about the job that was set aside back into its queue."""

    TYPE: ClassVar[str] = "job.resumed.v1"
    type: Literal["job.resumed.v1"]
    data: JobResumedData


class JobCancelled(Event):
    """job.cancelled: the user cancelled the job."""

    TYPE: ClassVar[str] = "job.cancelled.v1"
    type: Literal["job.cancelled.v1"]
    data: JobCancelledData


class JobPurged(Event):
    """job.purged: the job, its recording and its result are to be forgotten."""

    TYPE: ClassVar[str] = "job.purged.v1"
    type: Literal["job.purged.v1"]
    data: JobPurgedData


class AudioRemoved(Event):
    """audio.removed: the uploader has removed a purged job's recording."""

    TYPE: ClassVar[str] = "audio.removed.v1"
    type: Literal["audio.removed.v1"]
    data: AudioRemovedData


class AnalysisRemoved(Event):
    """analysis.removed: the analyzer-bridge has removed a purged job's analysis."""

    TYPE: ClassVar[str] = "analysis.removed.v1"
    type: Literal["analysis.removed.v1"]
    data: AnalysisRemovedData


class JobExpired(Event):
    """job.expired: the job stood still for too long and was given up."""

    TYPE: ClassVar[str] = "job.expired.v1"
    type: Literal["job.expired.v1"]
    data: JobExpiredData


class JobProgressed(Event):
    """job.progressed: what listeners see has changed; goes to each notifier that listens in the job's partition."""

    TYPE: ClassVar[str] = "job.progressed.v1"
    type: Literal["job.progressed.v1"]
    data: JobProgressedData


AnyEvent = Annotated[
    UploadReceived
    | AudioStored
    | UploadRejected
    | AnalysisDelayed
    | AnalysisRequested
    | AnalysisWebhookReceived
    | AnalysisWebhookIgnored
    | AnalysisProgressed
    | AnalysisCompleted
    | AnalysisFailed
    | JobHeld
    | JobResumed
    | JobCancelled
    | JobPurged
    | AudioRemoved
    | AnalysisRemoved
    | JobExpired
    | JobProgressed,
    Field(discriminator="type"),
]
EVENT_TYPES: tuple[type[Event], ...] = (
    UploadReceived,
    AudioStored,
    UploadRejected,
    AnalysisDelayed,
    AnalysisRequested,
    AnalysisWebhookReceived,
    AnalysisWebhookIgnored,
    AnalysisProgressed,
    AnalysisCompleted,
    AnalysisFailed,
    JobHeld,
    JobResumed,
    JobCancelled,
    JobPurged,
    AudioRemoved,
    AnalysisRemoved,
    JobExpired,
    JobProgressed,
)
_ANY: TypeAdapter[Any] = TypeAdapter(AnyEvent)
_OBJECT: TypeAdapter[JsonObject] = TypeAdapter(JsonObject)


def now() -> datetime:
    """Return the time to the millisecond, which is what MongoDB keeps: what is read from there equals what is here."""
    exactly = datetime.now(UTC)
    return exactly.replace(microsecond=exactly.microsecond // 1000 * 1000)


def decode(body: bytes) -> Event:
    """Read an event from the wire; InvalidEventError says which field is wrong, without the values."""
    try:
        event: Event = _ANY.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidEventError(f"invalid event: {place}: {first['msg']}"[:200]) from None
    return event


def envelope(body: bytes) -> Envelope | None:
    """Return which job a message that `decode` refuses is about, None when not even that can be read."""
    try:
        return Envelope.model_validate_json(body)
    except ValidationError:
        return None


def to_json(value: JsonObject) -> str:
    """Return a JSON object as compact text, numbers of any size included."""
    return _OBJECT.dump_json(value).decode()


def from_json(text: str) -> JsonObject:
    """Read what `to_json` wrote."""
    return _OBJECT.validate_json(text)


def event_id(job_id: str, event_type: str, step: str = "") -> str:
    """Return the id that this step of this job always has."""
    return str(uuid5(_NAMESPACE, f"{job_id}/{event_type}/{step}"))


def continued_trace(received: str | None) -> str:
    """Return `received` when it is a valid traceparent, else that of a new sampled trace (W3C Trace Context, 3.2)."""
    if received and _TRACEPARENT.fullmatch(received):
        return received
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
