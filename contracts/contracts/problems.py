"""Problem bodies (RFC 9457): every `code` that the public HTTP surface answers with, in Korean and English."""

from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from contracts import json_text, metadata
from contracts.catalogue import MAX_SCRIPTS
from contracts.failures import AUDIO_FAILURES, Language, sentence
from contracts.job import MAX_RETRIES
from contracts.json_text import Fault

CONTENT_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """What is wrong with one of a request's values."""

    field: str = Field(description="Its name; within another one after a dot, such as `aliases.0`")
    message: str


class Problem(BaseModel):
    """An error's body (RFC 9457, section 3); `code` is stable, `title` and `detail` are for people."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="A URI reference that names the kind of problem; ends in its code")
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] | None = Field(
        default=None,
        exclude_if=lambda errors: errors is None,
        description="With `request_invalid`: every value that is wrong, missing or unknown",
    )


@dataclass(frozen=True)
class ProblemKind:
    """One kind of problem: its status and what it says."""

    code: str
    status: int
    korean: tuple[str, str]
    english: tuple[str, str]

    def body(self, language: Language, errors: list[FieldProblem] | None = None) -> Problem:
        """Return the body in the caller's language."""
        title, detail = self.english if language == "en" else self.korean
        return Problem(
            type=f"/problems/{self.code}",
            title=title,
            status=self.status,
            detail=detail,
            code=self.code,
            errors=errors,
        )


FILE_MISSING = ProblemKind(
    "file_missing",
    422,
    ("파일이 없습니다", "multipart/form-data의 'file' 필드에, 또는 Content-Type이 audio/*인 본문으로 보내 주세요."),
    (
        "No file",
        "Send the recording in the field 'file' of multipart/form-data, or as a body of type audio/*.",
    ),
)
TOO_MANY_FILES = ProblemKind(
    "too_many_files",
    422,
    ("파일이 너무 많습니다", "한 번에 파일 하나만 보내 주세요."),
    ("Too many files", "Send one file at a time."),
)
FILE_EMPTY = ProblemKind(
    "file_empty",
    422,
    ("빈 파일입니다", "파일에 내용이 없습니다. 녹음을 확인하고 다시 보내 주세요."),
    ("Empty file", "The file has no bytes in it. Check the recording and send it again."),
)
ENCODING_UNSUPPORTED = ProblemKind(
    "encoding_unsupported",
    415,
    (
        "지원하지 않는 인코딩입니다",
        "본문을 압축하지 말고 있는 그대로 보내 주세요. 폼의 파트는 base64도, 분석 결과는 gzip이나 deflate도 됩니다.",
    ),
    (
        "Encoding not supported",
        "Send the body as it is. A part of a form may be in base64, and an analysis result compressed once with gzip "
        "or deflate.",
    ),
)
FORM_MALFORMED = ProblemKind(
    "form_malformed",
    400,
    (
        "요청을 읽을 수 없습니다",
        "multipart/form-data 본문이 올바르지 않습니다. "
        "Content-Type은 직접 지정하지 말고 브라우저가 boundary와 함께 붙이게 해 주세요.",
    ),
    (
        "Unreadable form",
        "The multipart/form-data body is malformed. Do not set Content-Type yourself: let the browser add it with its "
        "boundary.",
    ),
)
METADATA_INVALID = ProblemKind(
    "metadata_invalid",
    422,
    (
        "잘못된 metadata입니다",
        f"metadata는 {metadata.MAX_BYTES}바이트 이하, {metadata.MAX_DEPTH}단계 이하의 "
        "JSON 객체(UTF-8) 하나여야 하며, NaN이나 짝이 없는 "
        "서로게이트를 담을 수 없습니다.",
    ),
    (
        "Invalid metadata",
        f"Send one metadata: a JSON object in UTF-8 of at most {metadata.MAX_BYTES} bytes and "
        f"{metadata.MAX_DEPTH} levels, without NaN, "
        "infinite numbers or lone surrogates.",
    ),
)
TOKEN_ID_INVALID = ProblemKind(
    "token_id_invalid",
    422,
    ("잘못된 토큰 ID입니다", "토큰 ID는 1자 이상 200자 이하이고 제어 문자나 보이지 않는 문자가 없어야 합니다."),
    ("Invalid token id", "A token id has 1 to 200 characters, and none that controls or hides text."),
)
UPLOAD_TOO_LARGE = ProblemKind(
    "upload_too_large",
    413,
    ("파일이 너무 큽니다", "허용된 최대 크기를 넘었습니다. 더 짧게 녹음하거나 압축해 보내 주세요."),
    ("File too large", "The file is over the size limit. Make a shorter recording or compress it."),
)
UPLOAD_TOO_SLOW = ProblemKind(
    "upload_too_slow",
    408,
    ("업로드가 너무 느립니다", "데이터가 오지 않거나 너무 느리게 왔습니다. 연결을 확인하고 다시 올려 주세요."),
    ("Upload too slow", "The data stalled or came too slowly. Check your connection and upload the file again."),
)
TOO_MANY_AT_ONCE = ProblemKind(
    "too_many_at_once",
    429,
    ("동시에 너무 많은 요청을 보냈습니다", "앞서 보낸 요청이 끝난 뒤에 다시 시도해 주세요."),
    ("Too many at once", "Too many of your requests are under way. Try again once some of them have ended."),
)
BUSY = ProblemKind(
    "busy",
    503,
    ("지금은 처리할 수 없습니다", "요청이 많습니다. 잠시 후 다시 시도해 주세요."),
    ("Busy", "There are too many requests now. Please try again in a moment."),
)
UNAVAILABLE = ProblemKind(
    "unavailable",
    503,
    (
        "일시적으로 사용할 수 없습니다",
        "저장소나 메시지 서버에 연결할 수 없습니다. 잠시 후 다시 시도해 주세요.",
    ),
    ("Unavailable", "Storage or messaging cannot be reached. Please try again in a moment."),
)
JOB_NOT_FOUND = ProblemKind(
    "job_not_found",
    404,
    ("작업을 찾을 수 없습니다", "job_id를 확인해 주세요."),
    ("Job not found", "No such job. Check the job_id."),
)
JOB_NOT_ENDED = ProblemKind(
    "job_not_ended",
    409,
    ("아직 처리 중인 작업입니다", "작업이 끝난 뒤에 다시 시도하거나, 먼저 작업을 취소해 주세요."),
    ("Job not ended", "The job is still under way. Wait for its end, or cancel it first."),
)
RECORDING_GONE = ProblemKind(
    "recording_gone",
    409,
    ("녹음이 남아 있지 않습니다", "이 작업의 녹음은 보관되어 있지 않습니다. 파일을 다시 올려 주세요."),
    ("Recording gone", "This job's recording is not kept. Please upload the file again."),
)
RETRIES_SPENT = ProblemKind(
    "retries_spent",
    409,
    (
        "더 다시 시도할 수 없습니다",
        f"한 녹음은 {MAX_RETRIES}번까지 다시 분석합니다. 필요 없는 재시도 작업을 삭제(purge)하거나 파일을 다시 올려 "
        "주세요.",
    ),
    (
        "No more retries",
        f"A recording has at most {MAX_RETRIES} retries. Purge one that is not needed, or upload the file again.",
    ),
)
AUDIO_NOT_FOUND = ProblemKind(
    "audio_not_found",
    404,
    ("오디오를 찾을 수 없습니다", "이 작업의 녹음이 아직 저장되지 않았거나 보관되어 있지 않습니다."),
    ("Audio not found", "This job's recording is not stored yet, or is not kept."),
)
RANGE_NOT_SATISFIABLE = ProblemKind(
    "range_not_satisfiable",
    416,
    ("요청한 범위가 없습니다", "범위가 오디오의 크기를 벗어났습니다. Content-Range 헤더에 크기가 있습니다."),
    ("Range not satisfiable", "The range lies beyond the audio. Its size is in the Content-Range header."),
)
IDEMPOTENCY_KEY_INVALID = ProblemKind(
    "idempotency_key_invalid",
    400,
    ("잘못된 Idempotency-Key입니다", "Idempotency-Key는 한 번만, 공백 없는 ASCII 문자 1~255자로 보내 주세요."),
    ("Invalid Idempotency-Key", "Send one Idempotency-Key of 1 to 255 visible ASCII characters."),
)
IDEMPOTENCY_KEY_IN_USE = ProblemKind(
    "idempotency_key_in_use",
    409,
    (
        "같은 요청이 처리 중입니다",
        "같은 Idempotency-Key의 요청이 아직 처리 중입니다. 잠시 후 같은 요청을 다시 보내 주세요.",
    ),
    (
        "Request in progress",
        "A request with this Idempotency-Key is still under way. Send the same request again in a moment.",
    ),
)
IDEMPOTENCY_KEY_JOB_GONE = ProblemKind(
    "idempotency_key_job_gone",
    410,
    ("작업이 삭제되었습니다", "이 Idempotency-Key로 만든 작업은 삭제되었습니다. 새 키로 다시 올려 주세요."),
    ("Job deleted", "The job that this Idempotency-Key made was deleted. Upload again with a new key."),
)
IDEMPOTENCY_KEY_REUSED = ProblemKind(
    "idempotency_key_reused",
    422,
    (
        "이미 사용한 Idempotency-Key입니다",
        "이 Idempotency-Key는 다른 녹음, 토큰 또는 metadata에 쓰였습니다. 새 키로 보내 주세요.",
    ),
    (
        "Idempotency-Key already used",
        "This Idempotency-Key was used for another recording, token or metadata. Send this one with a new key.",
    ),
)
TOO_MANY_REQUESTS = ProblemKind(
    "too_many_requests",
    429,
    ("요청이 너무 많습니다", "잠시 동안 보낼 수 있는 요청 수를 넘었습니다. Retry-After 초 뒤에 다시 시도해 주세요."),
    ("Too many requests", "You have sent too many requests for now. Try again in as many seconds as Retry-After says."),
)
TOO_MANY_UPLOADS = ProblemKind(
    "too_many_uploads",
    429,
    ("동시에 올리는 파일이 너무 많습니다", "진행 중인 업로드가 끝난 뒤에 다시 올려 주세요."),
    ("Too many uploads at once", "Wait for the end of the uploads that are under way, then upload again."),
)
TOO_MANY_BYTES = ProblemKind(
    "too_many_bytes",
    429,
    (
        "오늘 올릴 수 있는 용량을 넘었습니다",
        "하루에 올릴 수 있는 용량을 모두 썼습니다. Retry-After 초 뒤에 다시 올려 주세요.",
    ),
    ("Too many bytes today", "A day's bytes are used up. Upload again after as many seconds as Retry-After says."),
)
TOO_MANY_JOBS = ProblemKind(
    "too_many_jobs",
    429,
    ("처리 중인 작업이 너무 많습니다", "작업이 끝난 뒤에 다시 시도하거나, 필요 없는 작업을 취소해 주세요."),
    ("Too many jobs under way", "Wait for some of your jobs to end, or cancel those that you do not need."),
)
TOO_MANY_STREAMS = ProblemKind(
    "too_many_streams",
    429,
    ("열린 스트림이 너무 많습니다", "진행 상황을 보는 다른 창을 닫고 다시 시도해 주세요."),
    ("Too many streams open", "Close other pages that watch progress, then try again."),
)
LOGIN_REQUIRED = ProblemKind(
    "login_required",
    401,
    ("로그인이 필요합니다", "Authorization: Bearer 헤더에 토큰을 담거나, POST /auth/session으로 로그인해 주세요."),
    ("Login required", "Send a token as Authorization: Bearer, or log in with POST /auth/session."),
)
TOKEN_INVALID = ProblemKind(
    "token_invalid",
    401,
    ("인정되지 않는 토큰입니다", "토큰이 올바르지 않거나 이 서비스의 것이 아닙니다. 새로 로그인해 주세요."),
    ("Token not accepted", "The token is invalid, or not for this service. Log in again."),
)
TOKEN_EXPIRED = ProblemKind(
    "token_expired",
    401,
    ("만료된 토큰입니다", "토큰이 만료되었거나 취소되었습니다. 새로 로그인해 주세요."),
    ("Token expired", "The token has expired or was revoked. Log in again."),
)
NOT_ALLOWED = ProblemKind(
    "not_allowed",
    403,
    ("허용되지 않은 작업입니다", "이 작업에 필요한 권한이 없습니다. 권한은 GET /me에 있습니다."),
    ("Not allowed", "You lack the right that this needs. GET /me tells which ones you have."),
)
ORIGIN_NOT_ALLOWED = ProblemKind(
    "origin_not_allowed",
    403,
    ("허용되지 않은 출처입니다", "이 출처의 페이지는 변경할 수 없습니다. 운영자가 CORS_ORIGINS에 추가할 수 있습니다."),
    ("Origin not allowed", "Pages of this origin may change nothing here. An operator can add it to CORS_ORIGINS."),
)
LOGIN_OFF = ProblemKind(
    "login_off",
    409,
    ("로그인을 쓰지 않습니다", "이 서비스는 로그인 없이 씁니다 (AUTH=off)."),
    ("No login here", "This service is used without a login (AUTH=off)."),
)
SESSION_NOT_FOUND = ProblemKind(
    "session_not_found",
    404,
    ("세션이 없습니다", "이 토큰은 세션에서 나온 것이 아닙니다."),
    ("No session", "This token does not come from a session."),
)
LINK_NOT_FOUND = ProblemKind(
    "link_not_found",
    404,
    ("링크가 없습니다", "링크가 만료되었거나 취소되었거나, 이 주소가 보여 줄 것이 없습니다."),
    ("No such link", "The link has expired or was revoked, or there is nothing that this address may show."),
)
TOO_MANY_LINKS = ProblemKind(
    "too_many_links",
    409,
    ("링크가 너무 많습니다", "한 작업의 공유 링크 수가 한도에 이르렀습니다. 쓰지 않는 링크를 취소해 주세요."),
    ("Too many links", "The job has as many share links as it may have. Revoke one that is not needed."),
)
SIGNATURE_INVALID = ProblemKind(
    "signature_invalid",
    401,
    ("서명이 올바르지 않습니다", "분석 요청에 담긴 webhook_url을 그대로 호출해 주세요."),
    ("Invalid signature", "Call the webhook_url exactly as it was given with the analysis request."),
)
WEBHOOK_NOT_JSON = ProblemKind(
    "webhook_not_json",
    400,
    ("본문을 읽을 수 없습니다", "본문은 JSON 객체여야 합니다."),
    ("Unreadable body", "The body must be a JSON object."),
)


def _unreadable(korean: str, english: str) -> ProblemKind:
    """Return `webhook_not_json` with what is wrong with the body at hand."""
    return replace(
        WEBHOOK_NOT_JSON, korean=(WEBHOOK_NOT_JSON.korean[0], korean), english=(WEBHOOK_NOT_JSON.english[0], english)
    )


WEBHOOK_FAULTS: dict[Fault, ProblemKind] = {
    "damaged": _unreadable(
        "압축된 본문이 손상되어 풀 수 없습니다.", "The body is compressed, and damaged: it cannot be unpacked."
    ),
    "not_utf8": _unreadable(
        "본문이 UTF-8이 아닙니다. UTF-8로 보내 주세요.", "The body is not UTF-8. Send it as UTF-8."
    ),
    "not_json": _unreadable("본문이 올바른 JSON이 아닙니다.", "The body is not valid JSON."),
    "not_object": _unreadable("본문이 JSON 객체가 아닙니다.", "The body is JSON, but not a JSON object."),
    "too_deep": _unreadable(
        f"본문이 너무 깊게 중첩되어 있습니다. {json_text.MAX_DEPTH}단계까지 보낼 수 있습니다.",
        f"The body is nested too deeply. At most {json_text.MAX_DEPTH} levels are allowed.",
    ),
}
"""What `webhook_not_json` says of each fault."""
RESULT_TOO_LARGE = ProblemKind(
    "result_too_large",
    413,
    ("분석 결과가 너무 큽니다", "허용된 최대 크기를 넘어 보관할 수 없습니다."),
    ("Result too large", "The result is over the size limit and cannot be kept."),
)
TOKEN_NOT_FOUND = ProblemKind(
    "token_not_found",
    404,
    ("토큰을 찾을 수 없습니다", "token_id를 확인해 주세요."),
    ("Token not found", "No such token. Check the token_id."),
)
REFERENCE_NOT_FOUND = ProblemKind(
    "reference_not_found",
    404,
    ("참조 음성이 없습니다", "이 토큰에 올린 참조 음성이 없습니다."),
    ("No reference audio", "No reference audio was uploaded for this token."),
)
REFERENCE_REJECTIONS = {
    code: ProblemKind(
        code.value,
        422,
        ("참조 음성으로 쓸 수 없습니다", sentence(code, "ko")),
        ("Unusable reference audio", sentence(code, "en")),
    )
    for code in AUDIO_FAILURES
}
"""By the reason why a file cannot be used: the same codes as those of a recording that fails."""
SCRIPT_NOT_FOUND = ProblemKind(
    "script_not_found",
    404,
    ("스크립트를 찾을 수 없습니다", "스크립트의 id를 확인해 주세요."),
    ("Script not found", "No such script. Check its id."),
)
ACTOR_NOT_FOUND = ProblemKind(
    "actor_not_found",
    404,
    ("배우를 찾을 수 없습니다", "배우의 id를 확인해 주세요."),
    ("Actor not found", "No such actor. Check the id."),
)
ACTOR_EXISTS = ProblemKind(
    "actor_exists",
    409,
    ("이미 등록된 배우입니다", "같은 이름의 배우가 있습니다. 이름은 대소문자를 구별하지 않습니다."),
    ("Actor exists", "There is an actor of this name already, in whatever case."),
)
TOO_MANY_SCRIPTS = ProblemKind(
    "too_many_scripts",
    409,
    ("스크립트가 너무 많습니다", f"한 토큰의 스크립트는 {MAX_SCRIPTS}개까지입니다."),
    ("Too many scripts", f"A token has at most {MAX_SCRIPTS} scripts."),
)
PRECONDITION_FAILED = ProblemKind(
    "precondition_failed",
    412,
    ("그 사이에 변경되었습니다", "If-Match의 값이 현재와 다릅니다. 다시 읽은 뒤 ETag 헤더의 값으로 보내 주세요."),
    ("Changed meanwhile", "If-Match is not the current state. Read it again, and send what its ETag header has."),
)
BODY_TOO_LARGE = ProblemKind(
    "body_too_large",
    413,
    ("본문이 너무 큽니다", "요청 본문이 허용된 최대 크기를 넘었습니다."),
    ("Body too large", "The request's body is over the size limit."),
)
NOT_FOUND = ProblemKind(
    "not_found",
    404,
    ("찾을 수 없습니다", "주소를 확인해 주세요. 사용할 수 있는 호출은 /docs에 있습니다."),
    ("Not found", "There is nothing at this address. See /docs for what there is."),
)
METHOD_NOT_ALLOWED = ProblemKind(
    "method_not_allowed",
    405,
    ("허용되지 않은 메서드입니다", "이 주소에서는 그 메서드를 쓸 수 없습니다. /docs를 확인해 주세요."),
    ("Method not allowed", "This address does not take that method. See /docs."),
)
REQUEST_INVALID = ProblemKind(
    "request_invalid",
    422,
    ("잘못된 요청입니다", "요청의 값을 확인해 주세요. /docs에 형식이 있습니다."),
    ("Invalid request", "Check the request's values. See /docs for their form."),
)
BAD_REQUEST = ProblemKind(
    "bad_request",
    400,
    ("잘못된 요청입니다", "요청을 읽을 수 없습니다. 주소와 헤더를 확인해 주세요."),
    ("Bad request", "The request cannot be read. Check its address and headers."),
)
INTERNAL_ERROR = ProblemKind(
    "internal_error",
    500,
    ("내부 오류가 발생했습니다", "문제가 기록되었습니다. 잠시 후 다시 시도해 주세요."),
    ("Internal error", "The problem has been logged. Please try again later."),
)
