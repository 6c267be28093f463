"""The job document and the pure rule that events change it by: order-proof, repeat-proof, progress never falls."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from contracts import events, metadata
from contracts.events import AudioInfo, Event, JsonObject
from contracts.failures import FailureCode
from contracts.scores import Scores, scores_of

MAX_IGNORED_CALLS = 10
"""How many lines a job's history has of calls that came after the end: whoever knows the address may go on calling."""
MAX_RETRIES = 10
"""How many retries of one recording are kept at once: each has a copy of its bytes."""


class Status(StrEnum):
    """Where a job stands; all but `processing` are terminal."""

    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """The user cancelled it before it ended by itself."""


class Stage(StrEnum):
    """What is being done for a job now; says for programs what `message` says for people."""

    RECEIVED = "received"
    STORING = "storing"
    REQUESTING = "requesting"
    WAITING = "waiting"
    """For the analysis server: to take the recording on (progress 70), or to call back (90, more as it goes on)."""
    HELD = "held"
    """A message about the job is among the dead letters; a replay moves it on."""
    DONE = "done"


MESSAGES: dict[Stage, str] = {
    Stage.RECEIVED: "업로드 시작",
    Stage.STORING: "S3 업로드 중...",
    Stage.REQUESTING: "분석 서버 요청 중...",
    Stage.WAITING: "분석 중... 결과 대기",
    Stage.HELD: "처리 보류 중... 운영자 확인 대기",
}
DELAYED_MESSAGE = "분석 서버 대기 중..."
COMPLETED_MESSAGE = "분석 완료"
FAILED_MESSAGE = "분석 실패"
CANCELLED_MESSAGE = "분석 취소"

_ASKED_PROGRESS = 90
"""Where a job stands whose analysis is under way, until the analysis server says that it is further: up to 99."""
_STAGE_AT: dict[int, Stage] = {
    10: Stage.RECEIVED,
    40: Stage.STORING,
    70: Stage.REQUESTING,
    **dict.fromkeys(range(_ASKED_PROGRESS, 100), Stage.WAITING),
}
_PROGRESS_AFTER: dict[str, int] = {
    events.UploadReceived.TYPE: 40,
    events.AudioStored.TYPE: 70,
    events.AnalysisRequested.TYPE: _ASKED_PROGRESS,
}
_PROGRESS_WHEN_HELD: dict[str, int] = {
    **_PROGRESS_AFTER,
    # Interim calls may have moved the job on to 99; the one that is set aside may be the last.
    events.AnalysisWebhookReceived.TYPE: 99,
    events.AnalysisProgressed.TYPE: 0,  # holds nothing up
}
DELAYED_PROGRESS = 70
"""Where a job stands whose recording waits to be taken on by the analysis server."""
COMPLETED_PROGRESS = 100
_PROGRESS_WHEN_FAILED: dict[str, int] = {
    # The highest progress possible before the failure, but for what interim calls tell: a failed job's last progress
    # must not depend on event order.
    events.UploadRejected.TYPE: 40,
    events.AnalysisFailed.TYPE: 90,
}


class View(BaseModel):
    """What a listener can see of a job, but for its result, which comes with `completed` only."""

    model_config = ConfigDict(frozen=True)

    status: Status = Status.PROCESSING
    stage: Stage = Stage.RECEIVED
    progress: int = 10
    message: str = MESSAGES[Stage.RECEIVED]
    s3_url: str | None = None
    error: FailureCode | None = None
    updated_at: AwareDatetime


class HistoryEntry(BaseModel):
    """One event that concerned the job; `revision` and `view` are there when it changed what a listener sees."""

    event_id: str
    type: str
    time: AwareDatetime
    revision: int | None = None
    view: View | None = None


class Job(BaseModel):
    """The document in the `jobs` collection. The gateway inserts it; later each writes only the fields that it owns.

    The gateway's are those about what is to be told again, and about what users have asked for; all others are the
    notifier's.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    job_id: str = Field(alias="_id")
    token_id: str
    owner: events.Owner | None = Field(default=None, description="None: uploads needed no login when it came")
    filename: str | None = Field(default=None, max_length=255, description="What the user called the file")
    sha256: str | None = Field(default=None, description="Of the bytes as they were received, lower-case hex")
    retry_of: str | None = Field(default=None, description="The job whose recording this one analyses again")
    recording_of: str | None = Field(
        default=None, description="The job that the recording was uploaded for, of a retry or a retry's retry"
    )
    retry_number: int | None = Field(
        default=None, ge=1, le=MAX_RETRIES, description="Which one it is of the retries that are kept of that recording"
    )
    metadata_json: str | None = Field(default=None, description="The metadata as JSON text, like the result")
    metadata_terms: list[str] = Field(default_factory=list, description="What the job is found by (contracts.metadata)")
    traceparent: str
    created_at: AwareDatetime
    revision: int = Field(default=1, ge=1, description="Raised by every change that a listener can see; the SSE id")
    view: View
    audio: AudioInfo | None = None
    result_json: str | None = Field(
        default=None,
        description="The result as JSON text: BSON cannot hold every JSON object (64-bit integers, depth)",
    )
    scores: Scores | None = Field(default=None, description="What the result says of how well the token was spoken")
    held: dict[str, int] = Field(
        default_factory=dict, description="By the id of each job.held event, the progress that it holds the job at"
    )
    resumed: list[str] = Field(default_factory=list, description="The ids of job.held events that are no longer true")
    delayed: bool = Field(default=False, description="The analysis server could not be asked at once")
    analysis_deadline: AwareDatetime | None = Field(
        default=None, description="The latest of analysis.requested: until then, the analysis is under way"
    )
    removed: list[str] = Field(
        default_factory=list, description="Of a purged job: the types of the events that say what has been removed"
    )
    upload_received: str | None = Field(
        default=None, description="The gateway's: upload.received as JSON text, to be told again while nothing moves"
    )
    began_at: AwareDatetime | None = Field(
        default=None, description="The gateway's: when the request began that brought the recording"
    )
    publish_at: AwareDatetime | None = Field(
        default=None, description="The gateway's: when it looks whether something about the job must be told again"
    )
    redrives: int = Field(default=0, ge=0, description="The gateway's: how often in a row it was told in vain")
    redriven_at: AwareDatetime | None = Field(default=None, description="The gateway's: when it was last told again")
    cancel_asked_at: AwareDatetime | None = Field(default=None, description="The gateway's")
    purge_asked_at: AwareDatetime | None = Field(
        default=None, description="The gateway's: from then on, the job is not found any more"
    )
    history: list[HistoryEntry]

    @property
    def metadata(self) -> JsonObject | None:
        """Return the metadata that came with the recording."""
        return None if self.metadata_json is None else events.from_json(self.metadata_json)

    @property
    def recording(self) -> events.RecordingData:
        """Return what every event about the job says of its recording."""
        return events.RecordingData(token_id=self.token_id, metadata=self.metadata, owner=self.owner)

    @classmethod
    def received(
        cls,
        event: events.UploadReceived,
        filename: str | None,
        retry_of: str | None = None,
        publish_at: datetime | None = None,
    ) -> "Job":
        """Return the document of a recording that is completely stored.

        `event` is in it, to be told again from `publish_at` on.
        """
        view, given = View(updated_at=event.time), event.data.metadata
        created = HistoryEntry(event_id=event.subject, type="job.created", time=event.time, revision=1, view=view)
        return cls(
            job_id=event.subject,
            token_id=event.data.token_id,
            owner=event.data.owner,
            filename=filename,
            sha256=event.data.sha256,
            retry_of=retry_of,
            metadata_json=None if given is None else events.to_json(given),
            metadata_terms=[] if given is None else metadata.terms(given),
            traceparent=event.traceparent,
            created_at=event.time,
            view=view,
            upload_received=event.encode().decode(),
            publish_at=publish_at,
            history=[created],
        )


class Change(BaseModel):
    """What one event does to a job: named fields to set, and a line of history."""

    revision: int = Field(description="The job's revision after the change")
    view: View | None = Field(description="What a listener sees after the change; None when that is as it was")
    fields: dict[str, Any]
    entry: HistoryEntry


def recording_in(document: Mapping[str, Any]) -> events.RecordingData:
    """Return what every event about a job says of its recording; of its document three fields are enough."""
    text = document.get("metadata_json")
    metadata = None if text is None else events.from_json(text)
    return events.RecordingData(token_id=document["token_id"], metadata=metadata, owner=document.get("owner"))


def apply(job: Job, event: Event) -> Change | None:
    """Return what `event` changes.

    None when it was applied before, tells of a progress that listeners do not see, or of one more ignored call than
    the history has room for.

    The same events in any order lead to the same end, except those that end a job from outside (cancelled, purged,
    expired): of such an end and the job's own, the one that comes first stands. What is removed of a job proves that
    it was purged. A job that fails stays at the progress that its analysis was seen at.
    """
    if any(entry.event_id == event.id for entry in job.history) or _is_one_too_many(job, event):
        return None
    facts = _facts(job, event)
    view = _view(job.model_copy(update=facts), event)
    visible = view.model_copy(update={"updated_at": job.view.updated_at}) != job.view
    if isinstance(event, events.AnalysisProgressed) and not visible:
        return None
    revision = job.revision + 1 if visible else job.revision
    entry = HistoryEntry(event_id=event.id, type=event.type, time=event.time)
    if visible:
        facts["view"] = view
        entry = entry.model_copy(update={"revision": revision, "view": view})
    return Change(
        revision=revision,
        view=view if visible else None,
        fields=facts,
        entry=entry,
    )


def changed(job: Job, change: Change) -> Job:
    """Return the job after `change`, as the document will read."""
    update: dict[str, Any] = {**change.fields, "revision": change.revision}
    return job.model_copy(update={**update, "history": [*job.history, change.entry]})


def views_since(job: Job, revision: int) -> list[tuple[int, View]]:
    """Return every state after `revision`, each with its own revision, oldest first."""
    return [
        (entry.revision, entry.view)
        for entry in job.history
        if entry.revision is not None and entry.view is not None and entry.revision > revision
    ]


def is_terminal(status: Status | str) -> bool:
    """Tell whether a job of this status will never change again for a listener."""
    return status != Status.PROCESSING


def _is_one_too_many(job: Job, event: Event) -> bool:
    if not isinstance(event, events.AnalysisWebhookIgnored):
        return False
    return sum(entry.type == event.type for entry in job.history) >= MAX_IGNORED_CALLS


def _facts(job: Job, event: Event) -> dict[str, Any]:
    """Return the fields that `event` sets whatever else has happened, so that the order of arrival does not matter."""
    facts: dict[str, Any] = {}
    match event:
        case events.AudioStored():
            facts = {"audio": event.data.audio}
        case events.AnalysisDelayed():
            facts = {"delayed": True}
        case events.AnalysisRequested():
            deadline = event.data.deadline
            facts = {"analysis_deadline": max(job.analysis_deadline or deadline, deadline)}
        case events.AnalysisCompleted() if not is_terminal(job.view.status):
            facts = {"result_json": events.to_json(event.data.result), "scores": scores_of(event.data.result)}
        case events.AudioRemoved() | events.AnalysisRemoved():
            facts = {"removed": [*job.removed, event.type]}
        case events.JobHeld():
            # A message that is set aside at the very end (a completion) holds the job wherever it stands.
            held_at = _PROGRESS_WHEN_HELD.get(event.data.event_type, COMPLETED_PROGRESS)
            facts = {"held": {**job.held, event.id: held_at}}
        case events.JobResumed():
            facts = {"resumed": [*job.resumed, event.data.held_id]}
    return facts


def _view(job: Job, event: Event) -> View:
    before = job.view
    if is_terminal(before.status):
        return before
    update: dict[str, Any] = {"updated_at": max(before.updated_at, event.time)}
    if s3_url := getattr(event.data, "s3_url", None):
        update["s3_url"] = s3_url
    if isinstance(event, events.AnalysisCompleted):
        update |= {
            "status": Status.COMPLETED,
            "stage": Stage.DONE,
            "progress": COMPLETED_PROGRESS,
            "message": COMPLETED_MESSAGE,
        }
    elif isinstance(event, events.AnalysisFailed | events.UploadRejected):
        update |= {
            "status": Status.FAILED,
            "stage": Stage.DONE,
            "progress": max(before.progress, _PROGRESS_WHEN_FAILED[event.type]),
            "message": FAILED_MESSAGE,
            "error": event.data.code,
        }
    elif isinstance(event, events.JobExpired):
        update |= {
            "status": Status.FAILED,
            "stage": Stage.DONE,
            "message": FAILED_MESSAGE,
            "error": event.data.code,
        }
    elif isinstance(event, events.JobCancelled | events.JobPurged | events.AudioRemoved | events.AnalysisRemoved):
        update |= {"status": Status.CANCELLED, "stage": Stage.DONE, "message": CANCELLED_MESSAGE}
    else:
        update |= _underway(job, max(before.progress, _progress_after(event)))
    return before.model_copy(update=update)


def _progress_after(event: Event) -> int:
    if isinstance(event, events.AnalysisProgressed):
        return _ASKED_PROGRESS + event.data.percent * (COMPLETED_PROGRESS - 1 - _ASKED_PROGRESS) // 100
    return _PROGRESS_AFTER.get(event.type, 0)


def _underway(job: Job, progress: int) -> dict[str, Any]:
    """Return what a listener sees of a job that goes on. A hold counts until it is resumed or progress passes it."""
    stage = _STAGE_AT[progress]
    message = MESSAGES[stage]
    if any(at >= progress for held_id, at in job.held.items() if held_id not in job.resumed):
        stage, message = Stage.HELD, MESSAGES[Stage.HELD]
    elif job.delayed and progress == DELAYED_PROGRESS:
        stage, message = Stage.WAITING, DELAYED_MESSAGE
    return {"progress": progress, "stage": stage, "message": message}


def progressed(job: Job, revision: int, view: View) -> events.JobProgressedData:
    """Return what a listener sees of the job at one of its states; only a completed one has the result."""
    return events.JobProgressedData(
        revision=revision,
        **job.recording.passed_on(),
        **view.model_dump(),
        result_json=job.result_json if view.status == Status.COMPLETED else None,
        created_at=job.created_at,
    )
