"""Why a job can fail: stable codes for programs, and a sentence for people in Korean and English."""

from enum import StrEnum
from typing import Literal

Language = Literal["ko", "en"]


class FailureCode(StrEnum):
    """A job's `error.code`; codes are only ever added."""

    NOT_AUDIO = "not_audio"
    """The bytes are no audio that can be decoded."""
    AUDIO_TRUNCATED = "audio_truncated"
    """The recording ends before all that its header promises has come."""
    AUDIO_DAMAGED = "audio_damaged"
    """More than a tenth of the recording cannot be decoded."""
    AUDIO_TOO_COMPLEX = "audio_too_complex"
    """Decoding the file takes more channels, samples, memory or time than a recording needs."""
    AUDIO_EMPTY = "audio_empty"
    """The file is audio, but holds no sound at all: zero samples."""
    AUDIO_TOO_LONG = "audio_too_long"
    """The recording is longer than MAX_AUDIO_SECONDS."""
    AUDIO_MISSING = "audio_missing"
    """The bytes are not where the event says they are."""
    CHECKSUM_MISMATCH = "checksum_mismatch"
    """The stored bytes are not those that were sent."""
    ANALYSIS_REFUSED = "analysis_refused"
    """The analysis server refused the request for good."""
    ANALYSIS_FAILED = "analysis_failed"
    """The analysis server took the recording on and reported a failure."""
    ANALYSIS_TIMED_OUT = "analysis_timed_out"
    """The analysis server did not call back in time, at any attempt."""
    RESULT_TOO_LARGE = "result_too_large"
    """The result is larger than MAX_RESULT_BYTES."""
    RESULT_INVALID = "result_invalid"
    """The analysis server called back with a body that no known shape fits."""
    HELD_TOO_LONG = "held_too_long"
    """A message about the job was set aside, and nobody put it back within JOB_MAX_AGE."""
    NO_PROGRESS = "no_progress"
    """Nothing moved the job for JOB_MAX_AGE."""


AUDIO_FAILURES = (
    FailureCode.NOT_AUDIO,
    FailureCode.AUDIO_TRUNCATED,
    FailureCode.AUDIO_DAMAGED,
    FailureCode.AUDIO_TOO_COMPLEX,
    FailureCode.AUDIO_EMPTY,
    FailureCode.AUDIO_TOO_LONG,
)
"""Why a file cannot be used as a recording or a reference, whoever sends it."""

_SENTENCES: dict[FailureCode, tuple[str, str]] = {
    FailureCode.NOT_AUDIO: (
        "오디오 파일로 읽을 수 없습니다. 다른 형식으로 녹음해 다시 올려 주세요.",
        "This file cannot be read as audio. Please record again in another format.",
    ),
    FailureCode.AUDIO_TRUNCATED: (
        "오디오 파일이 중간에 잘렸습니다. 다시 올려 주세요.",
        "The audio file is cut off. Please upload it again.",
    ),
    FailureCode.AUDIO_DAMAGED: (
        "오디오 파일이 너무 많이 손상되었습니다. 다시 녹음하거나 다시 올려 주세요.",
        "Too much of the audio file is damaged. Please record it or upload it again.",
    ),
    FailureCode.AUDIO_TOO_COMPLEX: (
        "오디오 파일이 너무 복잡합니다. 채널 8개 이하, 4~384 kHz의 일반 녹음 파일로 올려 주세요.",
        "The audio file is too complex to decode. Send a plain recording of at most 8 channels at 4 to 384 kHz.",
    ),
    FailureCode.AUDIO_EMPTY: (
        "녹음된 소리가 없습니다. 다시 녹음해 주세요.",
        "The recording has no sound in it. Please record again.",
    ),
    FailureCode.AUDIO_TOO_LONG: (
        "녹음이 너무 깁니다. 더 짧게 녹음해 주세요.",
        "The recording is too long. Please make a shorter one.",
    ),
    FailureCode.AUDIO_MISSING: (
        "저장된 녹음을 찾을 수 없습니다. 다시 올려 주세요.",
        "The recording could not be found in storage. Please upload it again.",
    ),
    FailureCode.CHECKSUM_MISMATCH: (
        "녹음이 저장되는 중에 손상되었습니다. 다시 올려 주세요.",
        "The recording was damaged on its way into storage. Please upload it again.",
    ),
    FailureCode.ANALYSIS_REFUSED: (
        "분석 서버가 이 녹음을 받지 않았습니다.",
        "The analysis server did not accept this recording.",
    ),
    FailureCode.ANALYSIS_FAILED: (
        "분석 서버가 이 녹음을 분석하지 못했습니다.",
        "The analysis server could not analyse this recording.",
    ),
    FailureCode.ANALYSIS_TIMED_OUT: (
        "분석 서버가 제때 답하지 않았습니다. 잠시 후 다시 시도해 주세요.",
        "The analysis server did not answer in time. Please try again later.",
    ),
    FailureCode.RESULT_TOO_LARGE: (
        "분석 결과가 너무 커서 저장할 수 없습니다.",
        "The analysis result is too large to be kept.",
    ),
    FailureCode.RESULT_INVALID: (
        "분석 서버가 알 수 없는 형식으로 답했습니다.",
        "The analysis server answered in a form that is not understood.",
    ),
    FailureCode.HELD_TOO_LONG: (
        "처리가 보류된 채 너무 오래 지나 중단되었습니다. 다시 시도해 주세요.",
        "Processing was on hold for too long and has been given up. Please try again.",
    ),
    FailureCode.NO_PROGRESS: (
        "처리가 너무 오래 진행되지 않아 중단되었습니다. 다시 시도해 주세요.",
        "Nothing happened for too long and the job has been given up. Please try again.",
    ),
}


def sentence(code: FailureCode, language: Language) -> str:
    """Return what a user is told about this failure."""
    korean, english = _SENTENCES[code]
    return english if language == "en" else korean


def preferred_language(accept_language: str | None) -> Language:
    """Choose by an Accept-Language header (RFC 9110, section 12.5.4); Korean when it names neither."""
    ranked: list[tuple[float, Language]] = []
    for part in (accept_language or "").split(","):
        tag, _, parameters = part.strip().partition(";")
        primary = tag.strip().lower().split("-")[0]
        if primary == "en":
            ranked.append((_weight(parameters), "en"))
        elif primary == "ko":
            ranked.append((_weight(parameters), "ko"))
    acceptable = [choice for choice in ranked if choice[0] > 0]
    return max(acceptable, key=lambda choice: choice[0])[1] if acceptable else "ko"


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
