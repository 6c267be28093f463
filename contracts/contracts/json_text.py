"""JSON objects as strangers send them, read generously: what cannot be kept as it came is replaced, not refused."""

import re
from typing import Literal

import pydantic_core
from pydantic import JsonValue

from contracts.events import JsonObject

MAX_DEPTH = 100
"""How deeply an object may be nested: an event adds levels of its own, and JSON parsers give up at about 200."""
Fault = Literal["damaged", "not_utf8", "not_json", "not_object", "too_deep"]
"""What keeps a body from being read; `damaged` is said of a compressed one."""

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPES = re.compile(
    r"(?:\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|\\[^u]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})+"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""As many escapes as follow each other, or one surrogate that is alone. An escaped backslash begins no escape."""


class UnreadableError(ValueError):
    """What was sent is no JSON object that can be read."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault: Fault = fault


def decoded(content: bytes, *, whole: bool = True) -> str:
    """Return UTF-8 as text, without a byte order mark; a surrogate that is alone becomes U+FFFD. UnreadableError.

    Unless it is `whole`, the last character may be cut.
    """
    if b"\0" in content[:4]:  # of another encoding, without a mark (RFC 4627, section 3)
        raise UnreadableError("not_utf8")
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        if whole or error.end < len(content):
            raise UnreadableError("not_utf8") from None
        text = content[: error.start].decode("utf-8", "surrogatepass")
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_lone_surrogates(text: str) -> str:
    """Return JSON text with an escaped U+FFFD for each escaped surrogate that is alone: parsers refuse these."""
    return _ESCAPES.sub(lambda found: r"\ufffd" if found[1] else found[0], text)


def read_object(text: str) -> JsonObject:
    """Read a JSON object, or JSON text of one within JSON text; UnreadableError."""
    value = _read(text)
    while isinstance(value, str):
        try:
            value = _read(value)
        except UnreadableError:
            break
    if not isinstance(value, dict):
        raise UnreadableError("not_object")
    if _depth(value) > MAX_DEPTH:
        raise UnreadableError("too_deep")
    return value


def read_beginning(text: str) -> JsonObject:
    """Read the beginning of a JSON object that was cut anywhere; UnreadableError when it does not begin like one."""
    value = _read(text, whole=False)
    if not isinstance(value, dict):
        raise UnreadableError("not_object")
    return value


def _read(text: str, *, whole: bool = True) -> JsonValue:
    """Read any JSON; only if that fails, with an escaped U+FFFD for each escaped surrogate that is alone."""
    text = text.strip("\ufeff \t\r\n")
    try:
        return _parsed(text, whole=whole)
    except UnreadableError:
        mended = without_lone_surrogates(text)
        if mended == text:
            raise
    return _parsed(mended, whole=whole)


def _parsed(text: str, *, whole: bool) -> JsonValue:
    try:
        value: JsonValue = pydantic_core.from_json(text, allow_partial=False if whole else "trailing-strings")
    except ValueError as error:
        raise UnreadableError("too_deep" if "recursion limit" in str(error) else "not_json") from None
    return value


def _depth(value: JsonValue) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
