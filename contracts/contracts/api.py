"""Bodies of the public HTTP surface and of the SSE stream, and the OpenAPI text of what the notifier serves."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from contracts.events import AudioInfo, JobProgressedData, JsonObject
from contracts.failures import FailureCode, Language, sentence
from contracts.job import Job, Stage, Status
from contracts.problems import (
    BUSY,
    CONTENT_TYPE,
    JOB_NOT_FOUND,
    TOO_MANY_REQUESTS,
    TOO_MANY_STREAMS,
    UNAVAILABLE,
    ProblemKind,
)

UPLOAD_MESSAGE = "업로드 완료, 백그라운드에서 처리됩니다."
CANCEL_MESSAGE = "취소 요청을 받았습니다."
PURGE_MESSAGE = "삭제 요청을 받았습니다."
ERASURE_MESSAGE = "모든 데이터의 삭제 요청을 받았습니다."
MOST_AHEAD = 1000
"""The most jobs that `ahead` counts: counting all of a large backlog would slow every reader."""
JOBS_PATH = "/jobs"
PROGRESS_PATH = "/tokens/analysis-progress/{job_id}"
RESULT_PATH = "/tokens/analysis-result/{job_id}"
SHARED_PATH = "/shared/{secret}"


class UploadAccepted(BaseModel):
    """The answer to an upload: the recording is safe and its job has begun."""

    message: str = UPLOAD_MESSAGE
    job_id: str
    status: Status = Status.PROCESSING
    result_url: str = Field(description="Where the job's state and result are read")
    progress_url: str = Field(description="Where the job's progress is streamed")


class RetryAccepted(UploadAccepted):
    """The answer to a retry: a new job has begun with the recording of an old one."""

    retry_of: str = Field(description="The job whose recording is analysed again")


class RemovalAccepted(BaseModel):
    """The answer to a job's cancelling or purging: it will be done, unless the job's own end is faster."""

    job_id: str
    status: Status = Field(description="As it was when it was asked for")
    message: str


class JobError(BaseModel):
    """Why a job failed."""

    code: FailureCode
    message: str = Field(description="A sentence for people, in the language of Accept-Language")


class JobState(BaseModel):
    """A job as a listener sees it: the answer to a result request, and the `data:` of every SSE message."""

    job_id: str
    status: Status
    stage: Stage
    token_id: str
    metadata: JsonObject | None = Field(default=None, description="The metadata that came with the recording")
    progress: int = Field(ge=0, le=100)
    message: str
    s3_url: str | None = Field(
        default=None, description="Where the audio lies; with AUTH=required, for all but operators, only a name for it"
    )
    result: JsonObject | None = None
    error: JobError | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class HistoryLine(BaseModel):
    """One event that concerned a job; from `status` on only where a listener saw a change."""

    type: str = Field(description="The event's type, or `job.created`")
    time: AwareDatetime
    status: Status | None = None
    stage: Stage | None = None
    progress: int | None = None
    message: str | None = None


class JobDetails(JobState):
    """Everything that is kept of a job."""

    filename: str | None = Field(default=None, description="What the user called the file")
    retry_of: str | None = Field(default=None, description="The job whose recording this one analyses again")
    audio: AudioInfo | None = Field(default=None, description="What decoding the recording found")
    ahead: int | None = Field(
        default=None,
        ge=0,
        le=MOST_AHEAD,
        description="While `processing`: how many jobs that came before it are not done either; "
        f"{MOST_AHEAD} means so many or more",
    )
    history: list[HistoryLine] = Field(description="In the order of arrival")


class JobList(BaseModel):
    """One page of jobs, the newest first; none has its `result`."""

    jobs: list[JobState]
    next: str | None = Field(default=None, description="Where the page after this one is read; absent on the last")


class ShareRight(StrEnum):
    """What a share link shows of its job."""

    RESULT = "result"
    """Its state and result."""
    AUDIO = "audio"
    """Its recording as well."""


class ShareLink(BaseModel):
    """A link that shows one job without a login; its address was told once, when it was made."""

    id: str = Field(description="What it is revoked by")
    right: ShareRight
    created_at: AwareDatetime
    expires_at: AwareDatetime


class ShareLinkMade(ShareLink):
    """A new link, with its address."""

    url: str = Field(description="Whoever has it sees the job; it is told here alone")


class ShareLinks(BaseModel):
    """A job's links that have not expired, the oldest first."""

    links: list[ShareLink]


class SharedJob(BaseModel):
    """A job as a share link shows it: its state and result, and nothing that says whose it is or where it lies."""

    status: Status
    stage: Stage
    token_id: str
    progress: int = Field(ge=0, le=100)
    message: str
    result: JsonObject | None = None
    error: JobError | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    audio_url: str | None = Field(default=None, description="Where the recording is read; with the right `audio`")


class TicketOpened(BaseModel):
    """A way into one stream of one job, for pages of other sites, whose EventSource sends neither header nor cookie."""

    ticket: str
    expires_in: int = Field(description="Seconds in which the stream must be opened; once")
    progress_url: str = Field(description="The stream's address with the ticket in it; show it to nobody")


class SessionOpened(BaseModel):
    """A session has begun; its cookie is with the answer."""

    owner: str = Field(description="The pseudonym whose jobs are this person's")
    roles: list[str]
    expires_at: AwareDatetime = Field(description="Unless it is used before, which renews it")


class Limit(BaseModel):
    """How much the caller may use of something, over all replicas."""

    name: str = Field(description="As in the header field `RateLimit`")
    used: int
    of: int
    resets_at: AwareDatetime | None = Field(default=None, description="Absent where what is used ends by itself")


class Me(BaseModel):
    """Who a caller is to Sori, and what they may do."""

    login_required: bool = Field(description="False where everybody may do everything")
    kind: Literal["anybody", "anonymous", "person", "machine"]
    owner: str | None = Field(default=None, description="The pseudonym whose jobs are the caller's")
    roles: list[str]
    rights: list[str]
    limits: list[Limit] = Field(description="Empty for who is not limited")


class Score(BaseModel):
    """How well a token or a script was spoken in one recording, 0 to 100."""

    score: float
    job_id: str
    created_at: AwareDatetime = Field(description="When the recording came")


class ScriptScores(BaseModel):
    """How well a person has spoken one script."""

    script_id: int
    best: Score = Field(description="Of equal ones, the newest")
    last: Score


class TokenScores(BaseModel):
    """How well a person has spoken one token, and its scripts."""

    token_id: str
    recordings: int = Field(ge=1, description="How many with a score are looked at: the newest, up to a limit")
    best: Score = Field(description="Of equal ones, the newest")
    last: Score
    scripts: list[ScriptScores]


class ScoreList(BaseModel):
    """One page of scores, by token id."""

    tokens: list[TokenScores]
    next: str | None = Field(default=None, description="Where the page after this one is read; absent on the last")


class ErasureAccepted(BaseModel):
    """The answer to a request to delete everything of a person: it will be done, whatever fails meanwhile."""

    message: str = ERASURE_MESSAGE
    asked_at: AwareDatetime = Field(description="What was begun before this moment is deleted")


class LoggedIn(BaseModel):
    """The answer to a Google login, as OAuth 2.0 has it (RFC 6749, section 5.1), with who logged in."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - a kind of token
    expires_in: int = Field(description="Seconds")
    user: "LoggedInUser"


class LoggedInUser(BaseModel):
    """What the issuer says of a person; only the id is kept."""

    id: str = Field(description="The pseudonym whose jobs are this person's")
    email: str | None = None
    name: str | None = None
    picture: str | None = None


class WebhookReceipt(BaseModel):
    """The answer to the analysis server's call."""

    received: Literal[True] = True
    job_id: str


class Health(BaseModel):
    """What a service can reach, and whether it can work."""

    status: Literal["ok", "unavailable"]
    service: str
    version: str
    checks: dict[str, Literal["up", "down"]] = Field(description="Told to operators and the inner network alone")
    warnings: list[str] = Field(default_factory=list, description="What somebody should look at; told by /health alone")


def opaque(job_id: str, seen: JobProgressedData) -> JobProgressedData:
    """Return the state as it is shown to those who need not know where audio lies in S3."""
    return seen if seen.s3_url is None else seen.model_copy(update={"s3_url": f"urn:sori:audio:{job_id}"})


def state_json(job_id: str, seen: JobProgressedData, language: Language) -> bytes:
    """Return a job's JobState in the caller's language, as JSON without the fields that it does not have.

    The result, which may be large and is asked for often, is put in as the text that it is kept as.
    """
    return _with_result(JobState(**_state(job_id, seen, language)), seen.result_json)


def shared_json(seen: JobProgressedData, audio_url: str | None, language: Language) -> bytes:
    """Return a job as a share link shows it, as `state_json` does."""
    fields = _state("", seen, language)
    shown = {name: value for name, value in fields.items() if name in SharedJob.model_fields}
    return _with_result(SharedJob(**shown, audio_url=audio_url), seen.result_json)


def details_json(job: Job, seen: JobProgressedData, ahead: int | None, language: Language) -> bytes:
    """Return a job's JobDetails in the caller's language, as `state_json` does."""
    details = JobDetails(
        **_state(job.job_id, seen, language),
        filename=job.filename,
        retry_of=job.retry_of,
        audio=job.audio,
        ahead=ahead,
        history=[
            HistoryLine(
                type=entry.type,
                time=entry.time,
                **entry.view.model_dump(include={"status", "stage", "progress", "message"}) if entry.view else {},
            )
            for entry in job.history
        ],
    )
    return _with_result(details, seen.result_json)


def listed(job_id: str, seen: JobProgressedData, language: Language) -> JobState:
    """Return how a job stands, without its result."""
    return JobState(**_state(job_id, seen, language))


def _state(job_id: str, seen: JobProgressedData, language: Language) -> dict[str, Any]:
    code = seen.error
    error = None if code is None else JobError(code=code, message=sentence(code, language))
    fields = seen.model_dump(exclude={"revision", "owner", "error", "result_json"})
    return {"job_id": job_id, "error": error, **fields}


def _with_result(state: JobState | SharedJob, result_json: str | None) -> bytes:
    text = state.model_dump_json(exclude_none=True).encode()
    if result_json is None:
        return text
    return b'%b,"result":%b}' % (text.removesuffix(b"}"), result_json.encode())


def _problem_answer(*kinds: ProblemKind) -> dict[str, Any]:
    """An OpenAPI response with the problem body, and an example of each kind."""
    return {
        "description": " or ".join(f"`{kind.code}`" for kind in kinds),
        "content": {
            CONTENT_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {kind.code: {"value": kind.body("en").model_dump()} for kind in kinds},
            }
        },
    }


def problem_answers(*kinds: ProblemKind) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` for these kinds of problems, by status."""
    by_status: dict[int, list[ProblemKind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {status: _problem_answer(*of_status) for status, of_status in by_status.items()}


PROGRESS_STREAM: dict[str, Any] = {
    "get": {
        "tags": ["jobs"],
        "summary": "Stream a job's progress",
        "description": (
            "Server-sent events: unnamed messages whose `data:` is the job's state and whose `id:` is its revision. "
            "A reconnect with `Last-Event-ID` gets what it missed; the stream ends after the terminal state. "
            "`HEAD` gets the headers that a stream would have, and opens none."
        ),
        "operationId": "stream_progress",
        "parameters": [
            {
                "name": "job_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
            },
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "The last `id:` that was received; a browser sends it by itself",
            },
            {
                "name": "lastEventId",
                "in": "query",
                "required": False,
                "schema": {"type": "integer", "minimum": 0},
                "description": "The same, as polyfills of EventSource send it (`evs_last_event_id` too); "
                "`Last-Event-ID` wins",
            },
            {
                "name": "ticket",
                "in": "query",
                "required": False,
                "schema": {"type": "string"},
                "description": "From `POST /auth/tickets`, in place of a token or a cookie; for one stream",
            },
        ],
        "responses": {
            "200": {
                "description": "The stream; each message's `data:` is a JobState",
                "content": {
                    "text/event-stream": {
                        "schema": {"type": "string"},
                        "example": (
                            'id: 2\ndata: {"job_id":"73732cad-5149-44d4-a954-e9c4781635c3","status":"processing",'
                            '"stage":"storing","token_id":"test-token","progress":40,"message":"S3 업로드 중..."}\n\n'
                        ),
                    }
                },
            },
            "204": {"description": "The listener has had the terminal state; do not reconnect"},
            "404": _problem_answer(JOB_NOT_FOUND),
            "429": _problem_answer(TOO_MANY_REQUESTS, TOO_MANY_STREAMS),
            "503": _problem_answer(BUSY, UNAVAILABLE),
        },
    }
}
"""OpenAPI path item of what the notifier serves; the gateway shows it in its own document."""
