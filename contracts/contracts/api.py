"""Bodies of the public HTTP surface and of the SSE stream, and the OpenAPI text of what the notifier serves."""

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field

from contracts.events import JobProgressedData, JsonObject
from contracts.failures import FailureCode, Language, sentence
from contracts.job import Stage, Status
from contracts.problems import BUSY, CONTENT_TYPE, JOB_NOT_FOUND, UNAVAILABLE, ProblemKind

UPLOAD_MESSAGE = "업로드 완료, 백그라운드에서 처리됩니다."
PROGRESS_PATH = "/tokens/analysis-progress/{job_id}"
RESULT_PATH = "/tokens/analysis-result/{job_id}"


class UploadAccepted(BaseModel):
    """The answer to an upload: the recording is safe and its job has begun."""

    message: str = UPLOAD_MESSAGE
    job_id: str
    status: Status = Status.PROCESSING
    result_url: str = Field(description="Where the job's state and result are read")
    progress_url: str = Field(description="Where the job's progress is streamed")


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
    progress: int = Field(ge=0, le=100)
    message: str
    s3_url: str | None = None
    result: JsonObject | None = None
    error: JobError | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class WebhookReceipt(BaseModel):
    """The answer to the analysis server's call."""

    received: Literal[True] = True
    job_id: str


class Health(BaseModel):
    """What a service can reach, and whether it can work."""

    status: Literal["ok", "unavailable"]
    service: str
    version: str
    checks: dict[str, Literal["up", "down"]]
    warnings: list[str] = Field(default_factory=list, description="What somebody should look at; told by /health alone")


def state_json(job_id: str, progressed: JobProgressedData, language: Language) -> bytes:
    """Return a job's JobState in the caller's language, as JSON without the fields that it does not have.

    The result, which may be large and is asked for often, is put in as the text that it is kept as.
    """
    fields = progressed.model_dump(exclude={"revision", "error", "result_json"})
    code = progressed.error
    error = None if code is None else JobError(code=code, message=sentence(code, language))
    state = JobState(job_id=job_id, error=error, **fields).model_dump_json(exclude_none=True).encode()
    if progressed.result_json is None:
        return state
    return b'%b,"result":%b}' % (state.removesuffix(b"}"), progressed.result_json.encode())


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
            "A reconnect with `Last-Event-ID` gets what it missed; the stream ends after the terminal state."
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
            "503": _problem_answer(BUSY, UNAVAILABLE),
        },
    }
}
"""OpenAPI path item of what the notifier serves; the gateway shows it in its own document."""
