"""Says in words for people what is wrong with each value of an invalid request."""

from collections.abc import Sequence
from typing import Any

from contracts.failures import Language
from contracts.problems import FieldProblem

MAX_FIELDS = 50
"""How many values one answer names at most."""
FIELD_CHARACTERS = 100
_READ_ONLY = {"id", "view_count", "scripts"}
"""Fields of answers that a body may not have: a row that is sent back as it was read is told which of them to drop."""
_WORDS = {
    "missing": ("값이 필요합니다.", "A value is needed."),
    "read_only": ("읽기 전용 필드입니다. 빼고 보내 주세요.", "This field is read-only: leave it out."),
    "extra_forbidden": ("알 수 없는 필드입니다.", "There is no such field."),
    "json_invalid": ("JSON이 아닙니다.", "This is not JSON."),
    "time_order": ("end_time은 start_time보다 커야 합니다.", "end_time must be greater than start_time."),
    "string_too_short": ("{min_length}자 이상이어야 합니다.", "Must have at least {min_length} characters."),
    "string_too_long": ("{max_length}자 이하여야 합니다.", "Must have at most {max_length} characters."),
    "string_pattern_mismatch": ("형식이 올바르지 않습니다.", "This is not of the form that is needed."),
    "too_long": ("{max_length}개 이하여야 합니다.", "Must have at most {max_length} items."),
    "greater_than_equal": ("{ge} 이상이어야 합니다.", "Must be at least {ge}."),
    "less_than_equal": ("{le} 이하여야 합니다.", "Must be at most {le}."),
    "finite_number": ("유한한 숫자여야 합니다.", "Must be a finite number."),
    "enum": ("허용된 값이 아닙니다: {expected}.", "Must be one of {expected}."),
    **dict.fromkeys(("string_type", "string_unicode"), ("문자열이어야 합니다.", "Must be text.")),
    **dict.fromkeys(("float_type", "float_parsing"), ("숫자여야 합니다.", "Must be a number.")),
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size"),
        ("정수여야 합니다.", "Must be an integer."),
    ),
    **dict.fromkeys(
        ("timezone_aware", "datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"),
        (
            "시간대가 있는 시각이어야 합니다. 예: 2026-11-01T00:00:00+09:00 (RFC 3339).",
            "Must be a time with its zone, such as 2026-11-01T00:00:00+09:00 (RFC 3339).",
        ),
    ),
    "metadata_filter": ("metadata.<key>=<value> 형식이어야 합니다.", "Must be written as metadata.<key>=<value>."),
    "address_not_allowed": (
        "references/와 CATALOGUE_PREFIX 아래의 파일만, 또는 버킷 밖의 https 주소만 쓸 수 있습니다.",
        "Only files under references/ and CATALOGUE_PREFIX may be named, or https addresses outside of the bucket.",
    ),
    "hidden_characters": (
        "제어 문자나 보이지 않는 문자는 쓸 수 없습니다.",
        "Must have no characters that control or hide text.",
    ),
    "list_type": ("배열이어야 합니다.", "Must be an array."),
    "model_attributes_type": (
        "JSON 객체여야 합니다 (Content-Type: application/json).",
        "Must be a JSON object (Content-Type: application/json).",
    ),
}
"""The sentences in Korean and English, by pydantic's name of the error; those that it lacks are our own."""
_OTHERWISE = ("올바르지 않은 값입니다.", "This value cannot be used.")


def wrong_fields(errors: Sequence[Any], language: Language) -> list[FieldProblem]:
    """Return what pydantic found wrong, by field; neither the values that were sent nor pydantic's own words."""
    return [FieldProblem(field=_field(error), message=_message(error, language)) for error in errors[:MAX_FIELDS]]


def _field(error: Any) -> str:
    # The first part is the place, such as `body`. In a body that is not JSON, a position in the text follows.
    place, *path = error["loc"]
    inner = "" if error["type"] == "json_invalid" else ".".join(map(str, path))
    return (inner or str(place))[:FIELD_CHARACTERS]


def _message(error: Any, language: Language) -> str:
    read_only = error["type"] == "extra_forbidden" and error["loc"][-1] in _READ_ONLY
    korean, english = _WORDS.get("read_only" if read_only else error["type"], _OTHERWISE)
    return (english if language == "en" else korean).format(**error.get("ctx", {}))
